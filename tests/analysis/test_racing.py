from __future__ import annotations

import numpy as np
import pytest
from analysis.simulate import Case, as_pairs, draw

from seer_ray.analysis.racing import Verdict, decide, evidence, log_wealth
from seer_ray.config.options import RacingConfig

SETTINGS = RacingConfig(enabled=True, margin=0.02, alpha=0.05, least=20)


def drawn(loss: float, problems: int = 200, accuracy: float = 0.8):  # type: ignore[no-untyped-def]
    dense, setting = draw(Case(problems, 2, accuracy, loss), seed=1, sweeps=1)
    return as_pairs(dense[0], setting[0])


def test_plain_cases() -> None:
    same = drawn(0.0, 800)
    found = decide({"bad": drawn(0.3), "same": as_pairs(same.correct == 1, same.correct == 1)}, SETTINGS)
    assert found["bad"].verdict is Verdict.WORSE and "loses more than 2 points" in found["bad"].why
    assert found["same"].verdict is Verdict.GOOD and "loses less than 2 points" in found["same"].why
    near = decide({"near": drawn(0.02)}, SETTINGS)["near"]
    assert near.verdict is Verdict.KEEP and not near.stop


def test_waits_for_the_first_look() -> None:
    early = decide({"bad": drawn(0.8, 19)}, SETTINGS)["bad"]
    assert not early.stop and early.why == "19 of the 20 problems before the first look"
    assert decide({"bad": drawn(0.8, 20)}, SETTINGS)["bad"].stop


def test_only_problems_that_are_complete() -> None:
    pairs = drawn(0.3)
    pairs.complete[15:] = False
    assert decide({"bad": pairs}, SETTINGS)["bad"].problems == 15
    pairs.correct[:5] = np.nan
    assert decide({"bad": pairs}, SETTINGS)["bad"].problems == 10


def test_the_error_rate_is_shared() -> None:
    pairs = drawn(0.3, 60)
    alone = decide({"bad": pairs}, SETTINGS)["bad"]
    assert alone.stop
    crowd = {"bad": pairs} | {str(i): drawn(0.0, 60) for i in range(int(0.05 / alone.evidence_worse) + 1)}
    assert not decide(crowd, SETTINGS)["bad"].stop


def test_order_of_problems_does_not_matter() -> None:
    means = np.random.default_rng(0).choice([-1, 0, 0.5, 1], 50)
    assert evidence(means, 0.02) == pytest.approx(evidence(np.sort(means), 0.02))


def test_wealth_is_a_fair_game_at_the_worst_of_the_hypothesis() -> None:
    """Its expectation over all outcomes is 1: what the inequality of Ville needs."""
    margin, chance = 0.1, 0.45  # differences of +1 and -1, mean exactly -margin
    n = 8
    signs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    means = 2.0 * signs - 1
    weight = (chance**signs * (1 - chance) ** (1 - signs)).prod(1)
    for wealth in evidence(means, margin):
        assert (weight * np.exp(wealth)).sum() == pytest.approx(1)


def test_wealth_is_never_negative() -> None:
    assert np.isfinite(log_wealth(np.full(100, -1.1), 1 / 1.1))
    for worst in (-1.0, 1.0):
        assert all(np.isfinite(wealth) for wealth in evidence(np.full(50, worst), 0.02))
