"""Jobs that measure, without a model: what their folder tells while they run, and after."""

from __future__ import annotations

from pathlib import Path

import pytest

from seer_ray.config.measuring import GatesEvalConfig
from seer_ray.config.options import ResultsConfig, TrackingConfig
from seer_ray.driver.measure import MeasureSummary, conclude, measuring
from seer_ray.status.live import MeasureLive
from seer_ray.status.read import read_status


def make(tmp_path: Path) -> GatesEvalConfig:
    off = TrackingConfig(enabled=False)
    return GatesEvalConfig(name="job", results=ResultsConfig(folder=str(tmp_path)), tracking=off)


def measure(tmp_path: Path) -> None:
    with measuring(make(tmp_path), None) as (frame, progress):
        progress(1, 4, "quest at 1/8")
        frame.status.write()
        now = read_status(str(tmp_path / "job"))
        assert (now.state, now.command, now.resumable) == ("running", "gates eval", False)
        assert isinstance(now.live, MeasureLive)
        assert (now.live.done, now.live.total, now.live.phase) == (1, 4, "quest at 1/8")
        conclude(frame, MeasureSummary(**frame.facts()), {"kl": 0.5})


def test_a_folder_tells_how_far_it_is_and_what_it_came_to(tmp_path: Path) -> None:
    measure(tmp_path)
    done = read_status(str(tmp_path / "job"))
    assert (done.state, done.metrics) == ("done", {"kl": 0.5})
    assert (tmp_path / "job" / "figures.json").exists()


def test_measured_again_it_is_not_done_before_it_is(tmp_path: Path) -> None:
    measure(tmp_path)
    measure(tmp_path)
    with pytest.raises(ValueError), measuring(make(tmp_path), None):
        raise ValueError("no such text")
    failed = read_status(str(tmp_path / "job"))
    assert (failed.state, failed.error, failed.metrics) == ("failed", "no such text", {})
    assert failed.message == "failed: no such text; continue with: seer-ray gates eval ..."
