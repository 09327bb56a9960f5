"""What the statistics promise, against simulated sweeps (``simulate.py`` says how, and prints the tables).

Intervals: a coverage within one point of the nominal one, or more. Tests that are exact or hold at any time:
the level itself. The score test of non-inferiority is not exact: its level and one point. Beyond that comes
only what chance does to 2,000 sweeps (``at_least``, ``at_most``).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis.simulate import (
    Case,
    accuracy_coverage,
    alarms,
    at_least,
    at_most,
    difference_coverage,
    draw,
    exchange_alarms,
    kept,
    races,
    tallies,
)

from seer_ray.analysis import clustered, multiple
from seer_ray.analysis.estimates import proportion
from seer_ray.analysis.paired import non_inferiority_of

SIZES = [(problems, samples) for problems in (10, 20, 50, 200) for samples in (1, 2, 4)]


@pytest.mark.parametrize("accuracy", [0.5, 0.95])
@pytest.mark.parametrize("problems, samples", SIZES)
def test_intervals_of_accuracy_cover(problems: int, samples: int, accuracy: float) -> None:
    ours, _ = accuracy_coverage(Case(problems, samples, accuracy))
    assert ours >= at_least(0.94)


@pytest.mark.parametrize("accuracy", [0.5, 0.95])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("problems, samples", SIZES)
def test_intervals_of_differences_cover(problems: int, samples: int, accuracy: float, few: bool) -> None:
    ours, _ = difference_coverage(Case(problems, samples, accuracy, 0.02, few))
    assert ours >= at_least(0.94)


def test_intervals_are_no_longer_than_they_must_be() -> None:
    """Where there is data enough, their coverage is the nominal one from above too."""
    for samples in (1, 2):
        case = Case(200, samples, 0.5, 0.02)
        assert accuracy_coverage(case)[0] <= at_most(0.96)
        assert difference_coverage(case)[0] <= at_most(0.96)
    assert difference_coverage(Case(200, 2, 0.5, 0.02), 0.8)[0] == pytest.approx(0.8, abs=at_most(0.8) - 0.79)


def test_why_it_is_not_t() -> None:
    """Near the ceiling, with few problems, it misses the truth far too often."""
    case = Case(20, 2, 0.95, 0.02)
    ours, t = difference_coverage(case)
    assert t < 0.9 < at_least(0.94) <= ours


@pytest.mark.parametrize("accuracy", [0.5, 0.95])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_paired_test_keeps_its_level_and_has_power(samples: int, accuracy: float) -> None:
    assert alarms(Case(200, samples, accuracy)) <= at_most(0.05)
    # What t-tests of that size have: losses of three and a half standard errors are seen nine times in ten.
    loss = 3.5 * standard_error(Case(200, samples, accuracy, 0.08))
    assert alarms(Case(200, samples, accuracy, loss)) >= at_least(0.9)


def standard_error(case: Case) -> float:
    """True one of a difference."""
    gained, lost, counts = tallies(*draw(case, seed=1))
    return float(((gained - lost).sum(-1) / counts.sum(-1)).std())


def test_paired_test_by_problem_keeps_its_level_where_mcnemar_does_not() -> None:
    by_problem, by_sample = exchange_alarms(200, 4)
    assert by_problem <= at_most(0.05)
    assert by_sample > 0.15


@pytest.mark.parametrize("accuracy", [0.5, 0.95])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("problems, samples", [(20, 1), (50, 4), (200, 1), (200, 4), (1000, 2)])
def test_non_inferiority_keeps_its_level(problems: int, samples: int, accuracy: float, few: bool) -> None:
    assert kept(Case(problems, samples, accuracy, 0.02, few), 0.02) <= at_most(0.06)


def test_non_inferiority_has_the_power_it_was_planned_for() -> None:
    """At the sample size of the textbook formula, (z + z)^2 variance / margin^2 problems of one sample."""
    gained, lost, _ = tallies(*draw(Case(1000, 1, 0.9)))
    variance = (gained + lost).mean()
    problems = math.ceil((1.6449 + 0.8416) ** 2 * variance / 0.03**2)
    assert at_least(0.77) <= kept(Case(problems, 1, 0.9), 0.03) <= at_most(0.83)


@pytest.mark.parametrize("problems", [2, 10, 30])
def test_no_difference_seen_is_no_proof(problems: int) -> None:
    """All pairs agree: as much evidence as the number of problems allows."""
    zeros = np.zeros(problems)
    p, low = non_inferiority_of(zeros, zeros, np.full(problems, 4.0), 0.02, 0.05)
    assert p > 0.05 and low < -0.02
    one, _ = non_inferiority_of(zeros, zeros, np.ones(problems), 0.02, 0.05)
    assert p == pytest.approx(one)


@pytest.mark.parametrize(
    "losses, orders",
    [
        ((0.02, 0.02, 0.02, 0.02), ((0, 1, 2, 3),)),
        ((0.02, 0.02, 0.02, 0.02), ((0, 1), (2, 3))),
        ((0.0, 0.02, 0.0, 0.02), ((0, 1), (2, 3))),
        ((0.0, 0.0, 0.02, 0.05), ((0,), (1,), (2,), (3,))),
    ],
)
def test_a_whole_sweep_makes_a_wrong_claim_at_most_so_often(
    losses: tuple[float, ...], orders: tuple[tuple[int, ...], ...]
) -> None:
    """That any setting that loses the margin is said to keep the accuracy."""
    p_values = []
    for i, loss in enumerate(losses):
        p, _ = non_inferiority_of(*tallies(*draw(Case(100, 2, 0.8, loss), seed=10 + i)), 0.02, 0.05)
        p_values.append(p)
    wrong = 0
    names = [[str(i) for i in order] for order in orders]
    for values in zip(*p_values, strict=True):
        found = multiple.sequences({str(i): float(p) for i, p in enumerate(values)}, names, 0.05)
        wrong += any(losses[int(i)] >= 0.02 for i in found)
    assert wrong / len(p_values[0]) <= at_most(0.06)


@pytest.mark.parametrize("accuracy", [0.5, 0.95])
def test_racing_keeps_its_error_rate_under_peeking(accuracy: float) -> None:
    trials = 1000
    at_margin = races(Case(200, 2, accuracy, 0.02), 0.02, sweeps=trials)
    assert at_margin["worse"] <= at_most(0.05, trials) and at_margin["good"] <= at_most(0.05, trials)
    equal = races(Case(200, 2, accuracy), 0.02, sweeps=trials)
    assert equal["worse"] <= at_most(0.05, trials)


def test_racing_sees_what_is_plain_and_spares_samples() -> None:
    found = races(Case(200, 2, 0.5, 0.2), 0.02, sweeps=300)
    assert found["worse"] > 0.95 and found["good"] == 0 and found["spared"] > 0.5
    good = races(Case(400, 2, 0.95), 0.1, sweeps=300)
    assert good["good"] > 0.95 and good["worse"] == 0 and good["spared"] > 0.3


def test_missing_samples_never_dilute() -> None:
    """A third of the samples lost at random: the estimates are still of the same accuracy and difference."""
    dense, setting = (x.astype(float) for x in draw(Case(60, 3, 0.7, 0.1)))
    gone = np.random.default_rng(3).random(dense.shape) < 0.33
    kept_counts = (~gone).sum(-1).astype(float)
    lost, gained = (np.where(gone, 0, x).sum(-1) for x in (dense > setting, setting > dense))
    value, _ = clustered.ratio(np.where(gone, 0, dense).sum(-1), kept_counts)
    change, _ = clustered.ratio(gained - lost, kept_counts)
    for means, truth in ((value, 0.7), (change, -0.1)):
        assert abs(means.mean() - truth) < 4 * means.std() / math.sqrt(len(means))
    low, high = clustered.proportion(np.where(gone, 0, dense).sum(-1), kept_counts)[2:]
    assert ((low <= 0.7) & (high >= 0.7)).mean() >= at_least(0.94)
    holes = np.where(gone[0], np.nan, dense[0])
    found = proportion(holes)
    assert found is not None and found.samples == (~gone[0]).sum()
    assert found.value == pytest.approx(np.nanmean(holes))
