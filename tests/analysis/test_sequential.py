"""When a problem needs no more samples, and how often that is wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from analysis.simulate import at_most
from scipy.integrate import quad

from seer_ray.analysis.rows import Sample, majority
from seer_ray.analysis.sequential import decided, wealth


def winner(answers: Sequence[str | None]) -> str | None:
    """The majority as metrics have it: among equals the first."""
    votes = {answer: answers.count(answer) for answer in answers if answer is not None}
    return max(votes, key=lambda answer: votes[answer], default=None)


def test_without_an_error_rate_it_is_decided_when_nothing_can_change_it() -> None:
    """Then and only then: all beginnings of five samples, with all that may follow."""
    for length in range(5):
        for begun in itertools.product(("a", "b", None), repeat=length):
            ends = {winner([*begun, *rest]) for rest in itertools.product(("a", "b", "c"), repeat=5 - length)}
            assert decided(begun, 5, 0.0) is (len(ends) == 1), begun


def test_wealth_is_the_mean_over_all_bets() -> None:
    for wins, losses in ((0, 0), (1, 0), (0, 3), (7, 2), (30, 11)):
        mean, _ = quad(lambda p, a=wins, b=losses: 2 * (2 * p) ** a * (2 - 2 * p) ** b, 0.5, 1)
        assert float(wealth(wins, losses)) == pytest.approx(mean)
    assert wealth(9, 0) == Fraction(2**10 - 1, 10)


@pytest.mark.parametrize(
    ("answers", "error", "expected"),
    [
        ("a" * 7, 0.05, False),
        ("a" * 8, 0.05, True),
        ("a" * 8, 0.01, False),
        ("ba" + "a" * 9, 0.05, False),  # found later, it has a smaller part of the stakes
        ("ba" + "a" * 10, 0.05, True),
        ("ab" + "a" * 9, 0.05, False),
        ("ab" + "a" * 10, 0.05, True),
        ("ab" * 20, 0.05, False),
        ("", 0.05, False),
        ("-" * 20, 0.05, False),
        ("-" * 20 + "a" * 8, 0.05, True),
    ],
)
def test_the_test_of_a_leader(answers: str, error: float, expected: bool) -> None:
    assert decided([None if a == "-" else a for a in answers], 1000, error) is expected


MODELS = {
    "sure": [0.95, 0.05],
    "two alike": [0.5, 0.5],
    "nearly alike": [0.4, 0.36, 0.24],
    "many": [0.1] * 10,
    "one of many": [0.2, *[0.08] * 10],
}
RUNS, MOST = 2000, 48


def stopped(shares: Sequence[float], error: float, seed: int) -> tuple[float, float, float]:
    """Of simulated problems: share that the test stops, share that it stops at a wrong answer, samples."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(shares), size=(RUNS, MOST), p=np.array(shares) / sum(shares))
    stops = wrong = samples = 0
    for answers in ([str(answer) for answer in row] for row in drawn.tolist()):
        # As if there were no end: what the end makes certain is another matter.
        looks = (n for n in range(4, MOST + 1, 4) if decided(answers[:n], 10**6, error))
        if (look := next(looks, None)) is not None:
            stops += 1
            # A tie has no most frequent answer: whatever is said is wrong.
            right = [str(n) for n, share in enumerate(shares) if share == max(shares)]
            wrong += right != [winner(answers[:look])]
        samples += look or MOST
    return stops / RUNS, wrong / RUNS, samples / RUNS


@pytest.mark.parametrize("model", MODELS)
def test_the_error_rate_is_kept(model: str) -> None:
    stops, wrong, samples = stopped(MODELS[model], 0.05, seed=sum(model.encode()))
    assert wrong <= at_most(0.05, RUNS)
    if model == "sure":
        assert stops > 0.99 and samples < 14 and math.isclose(wrong, 0.0, abs_tol=0.002)


def test_the_majority_that_is_decided_is_the_one_that_is_reported() -> None:
    answers = ["b", "a", None, "a", "b"]
    samples = [Sample(n, answer, answer == "b", False) for n, answer in enumerate(answers)]
    assert winner(answers) == "b" and majority(samples) is True
