"""A speedup is told only where it was measured in turns, with its interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seer_ray.analysis.speedup import speedup
from seer_ray.results.speed import Speed


def speed(*turns: float) -> Speed:
    return Speed(100, 1.0, turns)


def test_the_interval_is_that_of_the_ratios_of_turns() -> None:
    setting, dense = (200.0, 230.0, 190.0, 210.0), (100.0, 110.0, 100.0, 100.0)
    found = speedup(speed(*setting), speed(*dense), same_job=True)
    ratios = np.log(np.array(setting) / np.array(dense))
    ends = stats.t.interval(0.95, 3, ratios.mean(), stats.sem(ratios))
    assert found.value == pytest.approx(np.exp(ratios.mean()))
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(ends))) and not found.lacks


def test_a_machine_that_slows_down_slows_both() -> None:
    found = speedup(speed(200.0, 100.0, 50.0), speed(100.0, 50.0, 25.0), same_job=True)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(
    ("setting", "dense", "same", "lacks"),
    [
        (None, speed(1.0), True, "not measured"),
        (speed(1.0), speed(1.0), False, "measured in different jobs, not in turns under one load"),
        (speed(1.0, 1.0), speed(1.0, 1.0), True, "measured in too few turns (2, of 3 at least)"),
        (speed(1.0, 1.0, 1.0), speed(1.0, 1.0, 1.0, 1.0), True, "not measured in the same turns"),
        (speed(1.0, 2.0, 4.0), speed(1.0, 1.0, 1.0), True, "not steady, 0.36x to 11x in 3 turns"),
    ],
)
def test_else_the_reason_is_told(setting: Speed | None, dense: Speed, same: bool, lacks: str) -> None:
    found = speedup(setting, dense, same)
    assert (found.value, found.lacks) == (None, lacks)


def test_a_speed_that_changed_is_unsteady() -> None:
    assert Speed.measured(3.0, 300, [(100, 1.0), (100, 1.0), (100, 1.0)]).unsteady is False  # type: ignore[union-attr]
    assert Speed.measured(9.0, 300, [(100, 1.0), (100, 1.0), (100, 7.0)]).unsteady is True  # type: ignore[union-attr]
    few = Speed.measured(8.0, 200, [(100, 1.0), (100, 7.0), (0, 0.0)])
    assert few is not None and few.spread is None and not few.unsteady
