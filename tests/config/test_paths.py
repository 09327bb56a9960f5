"""Paths of options, as processes elsewhere must read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seer_ray.config.options import RunConfig
from seer_ray.config.paths import absolute_value, with_absolute_paths
from seer_ray.config.training import DistillConfig

VALUES: dict[str, tuple[str, Any, Any]] = {
    "a folder": ("model.name", "here", "{}/here"),
    "below": ("model.name", "./here", "{}/here"),
    "not there": ("model.name", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
    "an address": ("task.data", "s3://bucket/a.jsonl", "s3://bucket/a.jsonl"),
    "a glob": ("task.data", "data/*.jsonl", "{}/data/*.jsonl"),
    "of the package, whatever is here": ("model.name", "reasoner", "reasoner"),
    "gates of the package": ("model.gates", "smollm2", "smollm2"),
    "a run that is called so": ("data", "reasoner", "{}/reasoner"),
    "several": (
        "data",
        ["here", {"path": "here", "weight": 2.0}],
        ["{}/here", {"path": "{}/here", "weight": 2.0}],
    ),
    "of another job": (
        "study.learn",
        {"a": {"data.text": "here", "data.generator": "here"}, "b.data.text": "here"},
        {"a": {"data.text": "{}/here", "data.generator": "here"}, "b.data.text": "{}/here"},
    ),
    "none": ("model.gates", None, None),
}


@pytest.mark.parametrize("what", VALUES)
def test_what_is_here_gets_its_whole_path(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here", "reasoner", "smollm2"):
        (tmp_path / name).mkdir()

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(item) for item in value]
        if isinstance(value, dict):
            return {name: whole(item) for name, item in value.items()}
        return value.replace("{}", str(tmp_path)) if isinstance(value, str) else value

    option, value, expected = VALUES[what]
    assert absolute_value(option, value) == whole(expected)


def test_a_config_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    run, distill = RunConfig(), DistillConfig(data=["here"])
    run.model.name = run.model.tokenizer = "here"
    assert (
        with_absolute_paths(run).model.name
        == with_absolute_paths(run).model.tokenizer
        == str(tmp_path / "here")
    )
    assert with_absolute_paths(distill).data == [str(tmp_path / "here")]
    assert run.model.name == "here" and distill.data == ["here"]
