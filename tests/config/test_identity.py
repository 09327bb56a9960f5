from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from results.sample import row

from seer_ray.config.compose import from_yaml
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity
from seer_ray.config.options import RunConfig
from seer_ray.results.folder import RunFolder


def read(text: str) -> Identity:
    """Of a folder, which may have fewer options or others than there are now."""
    return Identity(yaml.safe_load(text), RunConfig)


def compare(here: str, folder: str) -> str | None:
    try:
        read(here).refuse_differences(read(folder), "runs/x")
    except ConfigError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@pytest.mark.parametrize(
    "here, folder, difference",
    [
        (
            "selector: {budget: 1024}",
            "selector: {budget: 2048}",
            "selector.budget: 1024 here, 2048 in the folder",
        ),
        ("task: {limit: 3}", "task: {limit: null}", "task.limit: 3 here, not set in the folder"),
        (
            "selector: {layers: {0-2: dense}}",
            "selector: {layers: {}}",
            "selector.layers.0-2: dense here, not set",
        ),
        ("sampling: {stop: [a]}", "sampling: {stop: [a, b]}", 'sampling.stop: ["a"] here, ["a", "b"] in the'),
        ("model: {dtype: auto}", "model: {dtype: float32}", "model.dtype: auto here, float32 in the folder"),
        ("engine: {exact: true}", "{}", "engine.exact: true here, false in the folder"),
        ("engine: {kv_dtype: int8}", "{}", "engine.kv_dtype: int8 here, auto in the folder"),
        (f"task: {{system: {'x' * 99}}}", "{}", f"task.system: {'x' * 59}… here"),
        (
            "{seed: 1, samples: 2}",
            "{seed: 2, samples: 3}",
            "samples: 2 here, 3 in the folder; seed: 1 here, 2 in",
        ),
    ],
)
def test_a_difference_is_named(here: str, folder: str, difference: str) -> None:
    message = compare(here, folder)
    assert message is not None and difference in message
    assert message.startswith("runs/x: made with other settings: ")
    assert read(here).digest != read(folder).digest


@pytest.mark.parametrize(
    "here, folder",
    [
        ("{name: a, cluster: {workers: 1}}", "{name: b, cluster: {workers: 2}, results: {folder: x}}"),
        ("engine: {max_batch: 4, kv_memory: 1GiB}", "engine: {max_batch: 8, kv_memory: auto}"),
        ("engine: {tensor_parallel: 2}", "{}"),
        ("model: {device: cpu}", "model: {device: cuda}"),
        ("selector: {budget: 2048}", "{}"),
        ("engine: {exact: true, kv_memory: 1GiB}", "engine: {exact: true}"),
        ("sampling: {temperature: 1}", "sampling: {temperature: 1.0}"),
    ],
)
def test_what_changes_no_row_may_differ(here: str, folder: str) -> None:
    assert compare(here, folder) is None


@pytest.mark.parametrize(
    "option",
    [
        "engine.max_batch: 4 here, 8 in the folder",
        "model.device: cpu here, cuda",
        "engine.tensor_parallel: 2 here, 1 in the folder",
    ],
)
def test_exact_runs_fix_what_changes_bits(option: str) -> None:
    message = compare(
        "{engine: {exact: true, max_batch: 4, tensor_parallel: 2}, model: {device: cpu}}",
        "{engine: {exact: true, max_batch: 8}, model: {device: cuda}}",
    )
    assert message is not None and option in message


def test_many_differences_stay_on_one_line() -> None:
    here = "{" + ", ".join(f"x{i}: 1" for i in range(8)) + "}"
    message = compare(here, "{}")
    assert (
        message is not None and "x4: 1 here" in message and "x5" not in message and "; and 3 more;" in message
    )


def test_an_edited_config_does_not_pass(tmp_path: Path) -> None:
    """Editing config.yaml in the folder and resuming from it would mix the rows of two settings."""
    path = tmp_path / "run"
    with RunFolder.open(str(path), from_yaml("selector: {budget: 2048}")) as folder:
        folder.commit([row("a", 0)])
    (path / "config.yaml").write_text("selector: {budget: 1024}")
    with pytest.raises(ConfigError, match="budget: 1024 here, 2048 in the folder"):
        RunFolder.open(str(path), from_yaml(RunFolder.view(str(path)).config_yaml))
