"""Jobs whose model changes, moves or is not there; only the engine needs none."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import fake_engine
import pytest
from jobs.conftest import MakeConfig
from jobs.sweeps import run as run_sweep
from tiny import make_tiny, save_tiny

from seer_ray.cluster.worker import Checked
from seer_ray.config.errors import ConfigError, Interrupted
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.driver import run as driver_run
from seer_ray.jobs import run as run_job
from seer_ray.models.identity import contents
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter


class Stopper(NullReporter):
    """Presses Ctrl-C once something is decoded."""

    def update(self, live: LiveStats) -> None:
        if live.phase == "decoding" and live.done >= 1:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def config(letters: MakeConfig, tmp_path: Path, model: Path) -> RunConfig:
    config = letters(ids="abcdef", tokens=60)
    config.model.name = str(shutil.copytree(model, tmp_path / "model"))
    config.engine.max_batch = 1
    return config


def run(config: RunConfig, build: Any = fake_engine.build_fake, reporter: Any = None) -> Any:
    return run_job.main(config, reporter or NullReporter(), build)


def rows(config: RunConfig) -> int:
    return len(RunFolder.view(f"{config.results.folder}/{config.name}").committed())


@pytest.mark.usefixtures("local_ray")
def test_a_run_goes_on_with_the_same_model_or_not_at_all(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(config, fake_engine.build_slow, Stopper())
    before = rows(config)
    assert before < 12
    kept = shutil.copytree(tmp_path / "model", tmp_path / "kept")
    make_tiny("qwen3", 1).save_pretrained(tmp_path / "model")
    words = r"runs/job: was begun with other files, .*: model.name: model.safetensors \(\w{16}, \w{16}\)"
    with pytest.raises(ConfigError, match=words):
        run(config)
    assert rows(config) == before
    shutil.rmtree(tmp_path / "model")
    shutil.move(kept, tmp_path / "model")
    run(config)
    assert rows(config) == 12
    shutil.rmtree(tmp_path / "model")
    assert run(config).rows == 12, "what is done needs no model"


@pytest.mark.usefixtures("local_ray")
def test_a_sweep_has_one_model(base: SweepConfig, tmp_path: Path, model: Path) -> None:
    base.model.name = str(shutil.copytree(model, tmp_path / "model"))
    assert not run_sweep(base, "selector=quest", "selector.budget=32,64").failed
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    found = run_sweep(base, "selector=quest", "selector.budget=32,64,128")
    assert found.failed == ["quest-128"], "what is done needs no model"
    (error,) = [point["error"] for point in found.points if point["error"]]
    assert "points/dense: was begun with other files" in error
    assert "model.tokenizer: chat_template.jinja" in error


def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, Any]]:
    """What would be sent to workers; nothing is."""
    sent: list[tuple[RunConfig, Any]] = []

    class Pool:
        def __init__(self, config: RunConfig, placement: Any, build: Any, watch: Any) -> None:
            sent.append((config, build))
            raise ConfigError("sent")

    monkeypatch.setattr(driver_run, "WorkerPool", Pool)
    return sent


@pytest.mark.usefixtures("local_ray")
def test_workers_get_absolute_paths_and_digests(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "words", "qwen3")
    config.model.name, config.model.tokenizer = "model", "./words"
    sent = started(monkeypatch)
    with pytest.raises(ConfigError, match="sent"):
        run(config)
    ((theirs, build),) = sent
    assert (theirs.model.name, theirs.model.tokenizer) == (f"{tmp_path}/model", f"{tmp_path}/words")
    assert (config.model.name, config.model.tokenizer) == ("model", "./words")  # as the folder has them
    assert isinstance(build, Checked) and build.contents == contents(config.model)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    save_tiny(tmp_path / "elsewhere" / "model", "qwen3", seed=1)
    assert build(theirs) is not None  # the model that the driver has
    make_tiny("qwen3", 2).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="has other files than where the job was started"):
        build(theirs)


NOT_A_MODEL = {
    "no tokenizer": (("tokenizer.json", "tokenizer_config.json"), "the folder has no tokenizer"),
    "no config": (("config.json",), "the folder has no config.json, so it is not a model"),
}


@pytest.mark.parametrize("what", NOT_A_MODEL)
def test_what_no_worker_could_read_is_found_before_ray_starts(
    what: str, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*args: object) -> None:
        raise AssertionError("Ray is started")

    monkeypatch.setattr(driver_run, "connected", start)
    files, words = NOT_A_MODEL[what]
    for name in files:
        (tmp_path / "model" / name).unlink()
    with pytest.raises(ConfigError, match=f"^model.name={tmp_path}/model: {words}") as caught:
        run(config)
    assert "\n" not in str(caught.value)
