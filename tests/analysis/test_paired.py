"""Differences by hand and against statsmodels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from analysis.simulate import Case, as_pairs, draw
from analysis.test_outcomes import failed, table
from results.sample import row

from seer_ray.analysis import clustered
from seer_ray.analysis.outcomes import align
from seer_ray.analysis.paired import PairedOutcomes, difference, drift, inferiority, non_inferiority, pair
from seer_ray.analysis.power import more


def drawn(case: Case, seed: int = 0) -> PairedOutcomes:
    dense, setting = draw(case, seed, sweeps=1)
    return as_pairs(dense[0], setting[0])


def test_only_pairs_that_are_graded_in_both_count() -> None:
    dense = table(row("a", 0), row("a", 1), row("b", 0), row("b", 1), row("c", 0), row("c", 1))
    other = table(
        row("a", 0, correct=False), row("b", 0, correct=None), failed("b", 1), row("c", 1), row("c", 0)
    )
    outcomes = align({"dense": dense, "quest": other})
    pairs = pair(outcomes["dense"], outcomes["quest"])
    found = difference(pairs)
    assert (found.pairs, found.problems, found.lost, found.gained) == (4, 3, 2, 0)
    assert found.value == -0.5, "a missing sample is no loss, an error is"
    assert pairs.unmatched == 1 and pairs.complete.tolist() == [False, True, True]
    length = drift(pairs)
    assert length and length.pairs == 4 and length.value == 0, "an error has no length"


def test_standard_errors_are_those_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    pairs = drawn(Case(60, 3, 0.7, 0.1))
    pairs.correct[:10, 1:] = np.nan
    values, groups = [], []
    for i, j in zip(*np.nonzero(~np.isnan(pairs.difference)), strict=True):
        values.append(pairs.difference[i, j])
        groups.append(i)
    fit = api.OLS(np.array(values), np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    found = difference(pairs)
    assert found.value == pytest.approx(fit.params[0])
    assert found.stderr == pytest.approx(fit.bse[0] * math.sqrt(60 / 59))


def test_intervals_are_those_of_statsmodels_where_samples_are_independent() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    right = np.array([1] * 37 + [0] * 3)
    value, error, low, high = clustered.proportion(right, np.ones(40))
    t = float(clustered.quantile(0.975, np.ones(40)))
    # Theirs has the normal quantile; one sample a problem has the n - 1 correction too.
    size = float(clustered.effective(value * (1 - value), error, np.ones(40)))
    assert size == pytest.approx(40, rel=0.03)
    theirs = proportion.proportion_confint(size * value, size, method="wilson", alpha=2 * normal_tail(t))
    assert (low, high) == pytest.approx(theirs)


def normal_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


@pytest.mark.parametrize("right", [0, 1])
def test_the_interval_of_a_share_holds_it_also_at_its_ends(right: int) -> None:
    """Rounding must not put an end beyond the value: a bar of negative length cannot be drawn."""
    for problems in range(2, 200):
        counts = np.ones(problems)
        value, _, low, high = clustered.proportion(right * counts, counts)
        assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize(
    "gained, lost, d", [(3, 5, -0.1), (0, 4, 0.05), (6, 0, -0.02), (0, 0, 0.1), (2, 2, 0)]
)
def test_score_has_the_variance_of_the_likeliest_proportions_under_the_hypothesis(
    gained: int, lost: int, d: float
) -> None:
    n = 40
    grid = np.linspace(max(0, -d), (1 - d) / 2, 200_001)[:, None]
    shares = np.concatenate([grid + d, grid, 1 - d - 2 * grid], 1)
    seen = np.array([gained, lost, n - gained - lost])
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = np.where(seen > 0, seen * np.log(shares), 0).sum(1)
    best = shares[np.nanargmax(likelihood)]
    expected = (gained - lost - n * d) / math.sqrt(n * (best[0] + best[1] - d**2))
    found = clustered.score(np.array(gained / n), np.array(lost / n), np.array(n), d)
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_score_interval_is_symmetric_and_has_length_without_differences() -> None:
    size, t = np.array(30.0), np.array(2.0)
    low, high = clustered.score_interval(np.array(0.1), np.array(0.2), size, t)
    back = clustered.score_interval(np.array(0.2), np.array(0.1), size, t)
    assert (float(-back[1]), float(-back[0])) == pytest.approx((float(low), float(high)))
    low, high = clustered.score_interval(np.array(0.0), np.array(0.0), size, t)
    # Nothing differs: the variance at d is d (1 - d), so that n d / (1 - d) = t^2.
    assert float(high) == pytest.approx(4 / 34) and float(low) == pytest.approx(-4 / 34)


@pytest.mark.parametrize("seed", range(5))
def test_exact_test_is_the_share_of_all_sign_flips(seed: int) -> None:
    sums = np.random.default_rng(seed).integers(-3, 4, 8)
    flips = [abs(np.dot(sums, signs)) for signs in itertools.product((-1, 1), repeat=len(sums))]
    assert clustered.sign_flip(sums) == pytest.approx(np.mean(np.array(flips) >= abs(sums.sum())))


def test_exact_test_with_one_sample_is_mcnemar() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    found = difference(drawn(Case(100, 1, 0.7, 0.1)))
    theirs = tables.mcnemar([[0, found.lost], [found.gained, 0]], exact=True).pvalue
    assert found.p_value == pytest.approx(theirs)


def test_nothing_differs() -> None:
    pairs = drawn(Case(30, 2, 0.7))
    found = difference(as_pairs(pairs.correct == 1, pairs.correct == 1))
    assert (found.value, found.stderr, found.p_value) == (0, 0, 1)
    assert found.low < -0.05 and found.high > 0.05


def test_one_problem_says_nothing() -> None:
    found = difference(drawn(Case(1, 8, 0.7)))
    assert math.isnan(found.stderr) and math.isnan(found.low) and found.caution
    assert not non_inferiority(drawn(Case(1, 8, 0.7)), 0.5).shown


def test_bound_and_test_of_non_inferiority_agree() -> None:
    pairs = drawn(Case(200, 2, 0.7, 0.02))
    bound = -non_inferiority(pairs, 0.1).low
    assert non_inferiority(pairs, bound + 1e-6).shown
    assert not non_inferiority(pairs, bound - 1e-6).shown
    assert non_inferiority(pairs, bound).p_value == pytest.approx(0.05)


def test_inferiority_is_the_other_side() -> None:
    pairs = drawn(Case(200, 2, 0.7, 0.2))
    assert inferiority(pairs, 0.02) < 1e-3 < 0.5 < inferiority(pairs, 0.6)
    assert inferiority(pairs, 0.1) == pytest.approx(1 - non_inferiority(pairs, 0.1).p_value)


def test_drift_is_a_ratio_of_sums() -> None:
    pairs = drawn(Case(40, 2, 0.7))
    pairs.tokens[:20] = 110
    found = drift(pairs)
    assert found and found.value == pytest.approx(0.05)
    assert found.low < 0.05 < found.high and found.stderr == pytest.approx(
        0.1 * 0.5 / math.sqrt(39), rel=1e-6
    )


@pytest.mark.parametrize("samples", [2, 4])
def test_the_samples_asked_for_do(samples: int) -> None:
    """A small pilot says how many samples are needed; with so many, the power is near the promised one."""
    case = Case(400, samples, 0.8)
    pilots = [drawn(case, seed) for seed in range(40)]
    advice = [more(pairs, difference(pairs), 0.02, 0.05) for pairs in pilots]
    wanted = [samples + found.samples for found in advice if found and found.samples and not found.assumed]
    assert len(wanted) > 10
    dense, setting = draw(Case(400, round(float(np.median(wanted))), 0.8), seed=99, sweeps=300)
    shown = [non_inferiority(as_pairs(*both), 0.02).shown for both in zip(dense, setting, strict=True)]
    assert 0.65 < np.mean(shown) < 0.95


def test_pairs_that_all_agree_need_as_many_problems_as_the_test_asks_for() -> None:
    """It once asked for one more."""
    alpha = 0.004
    agree = np.ones((200, 2))
    pairs = as_pairs(agree, agree)
    assert not non_inferiority(pairs, 0.02, alpha).shown
    found = more(pairs, difference(pairs), 0.02, alpha)
    assert found and found.samples is None and 20 < found.problems < 200
    enough = np.ones((200 + found.problems + 5, 2))
    assert non_inferiority(as_pairs(enough, enough), 0.02, alpha).shown


def test_where_no_data_would_help() -> None:
    pairs = drawn(Case(400, 2, 0.7, 0.2))
    assert more(pairs, difference(pairs), 0.02, 0.05) is None
    single = drawn(Case(50, 1, 0.7))
    found = more(single, difference(single), 0.02, 0.05)
    assert found and found.at_least and found.problems > 100 and "more problems" in found.text
