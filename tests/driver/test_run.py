"""What is refused before anything is started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.driver import run
from seer_ray.jobs import run as job
from seer_ray.status.live import NullReporter


class Phases(NullReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, live: Any) -> None:
        self.said.append(live.phase)

    update = start


@contextlib.contextmanager
def nobody(*_: Any) -> Iterator[None]:
    raise AssertionError("Ray is started")
    yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("m"), "qwen3")


@pytest.mark.parametrize(
    ("section", "option", "value", "message"),
    [
        ("selector", "layers", {"9": "dense"}, r"selector\.layers\.9=dense: must name layers 0 to 1"),
        ("selector", "dense_layers", 5, r"selector\.dense_layers=5: the model has 2 layers"),
        ("engine", "max_length", 5000, r"engine\.max_length=5000: "),
        (
            "engine",
            "record_requests",
            ["x/7"],
            r"engine\.record_requests=x/7: must be problem/sample, one of ",
        ),
        ("model", "name", "nowhere/at-all", r"model\.name=nowhere/at-all: "),
        ("task", "data", "nowhere.jsonl", r"task\.data=nowhere\.jsonl: "),
    ],
)
def test_nothing_is_started_and_no_folder_stays(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    section: str, option: str, value: Any, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(run, "connected", nobody)
    config = RunConfig(name="job")
    config.model.name, config.results.folder = str(model), str(tmp_path / "runs")
    config.tracking.uri = f"sqlite:///{tmp_path}/mlflow.db"
    setattr(getattr(config, section), option, value)
    reporter = Phases()
    with pytest.raises(ConfigError, match=message):
        job.main(config, reporter)
    assert not (tmp_path / "runs" / "job").exists() and not (tmp_path / "mlflow.db").exists()
    assert reporter.said[0] == "reading the problems" and all(reporter.said)
