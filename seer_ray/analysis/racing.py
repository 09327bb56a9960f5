"""Racing: stop sampling a setting once the answer is known.

For each setting two hypotheses about its mean difference from the baseline (by problem, within [-1, 1]) are
tested: that it is no worse than the margin allows, and that it is. Both tests are betting martingales: the
wealth of one who bets a fixed fraction on every problem, averaged over a grid of fractions (Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", 2024, with a mixture in place of their
adaptive bets, so that the order of the problems seen does not matter). By Ville's inequality wealth that
should not grow reaches 1/alpha with a chance of at most alpha, ever: one may look after every problem and
stop at any.

It holds for problems in an order that knows nothing of their difficulty. A dataset that is sorted by it
must be shuffled first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seer_ray.analysis.paired import PairedOutcomes
from seer_ray.analysis.words import points
from seer_ray.config.options import RacingConfig

BETS = np.geomspace(0.01, 0.9, 24)
"""Of the wealth that the mixture bets on a problem, of the most that it could bet."""


class Verdict(StrEnum):
    KEEP = "keep"
    WORSE = "stop: worse"
    GOOD = "stop: good enough"


@dataclass(frozen=True)
class Decision:
    """What to do about a setting, and why."""

    verdict: Verdict
    why: str
    problems: int
    """That were complete."""
    evidence_worse: float
    """Anytime p-value of "the setting is within the margin"."""
    evidence_good: float
    """Anytime p-value of "the setting is worse than the margin allows"."""

    @property
    def stop(self) -> bool:
        return self.verdict is not Verdict.KEEP


def decide(outcomes: Mapping[str, PairedOutcomes], settings: RacingConfig) -> dict[str, Decision]:
    """Which settings need no more samples.

    Nothing is remembered between calls: call it as often as you like, with all settings of the sweep each
    time, also those that were stopped before, since ``alpha`` is divided by their number. What was decided
    stays decided, whatever a later call says.

    With probability 1 - ``alpha`` no setting within the margin is stopped as worse, and with the same
    probability none that is worse than the margin allows is stopped as good enough.
    """
    level = settings.alpha / max(1, len(outcomes))
    return {name: _decide(pairs, settings, level) for name, pairs in outcomes.items()}


def log_wealth(gains: ArrayLike, most: float) -> NDArray[np.float64]:
    """Of one who bets on every gain the same fraction of his wealth, averaged over ``BETS``, as a logarithm.

    Args:
        gains: what a bet of 1 wins; expected not above 0 under the hypothesis, [..., problems]
        most: the largest bet that cannot lose more than there is

    Returns:
        [...]
    """
    from scipy.special import logsumexp

    gains = np.asarray(gains, float)
    each = np.stack([np.log1p(bet * most * gains).sum(-1) for bet in BETS], -1)
    return logsumexp(each, -1) - math.log(len(BETS))


def evidence(means: ArrayLike, margin: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log wealth against "the setting is within the margin" and against "it is worse", [...].

    Args:
        means: mean difference of each problem, within [-1, 1], [..., problems]
        margin: above 0
    """
    means = np.asarray(means, float)
    return log_wealth(-margin - means, 1 / (1 + margin)), log_wealth(means + margin, 1 / (1 - margin))


def _decide(pairs: PairedOutcomes, settings: RacingConfig, level: float) -> Decision:
    counts = np.where(pairs.complete, pairs.counts, 0)
    means = np.nansum(pairs.difference, -1)[counts > 0] / counts[counts > 0]
    n = len(means)
    worse, good = (min(1.0, math.exp(-float(wealth))) for wealth in evidence(means, settings.margin))
    verdict = Verdict.KEEP
    why = "not decided yet"
    mean = f"{points(means.mean())} points on {n} problems" if n else "no problem is complete"
    if n < settings.least:
        why = f"{n} of the {settings.least} problems before the first look"
    elif worse <= level:
        verdict = Verdict.WORSE
        why = f"{mean}: loses more than {100 * settings.margin:g} points (anytime p = {worse:.2g})"
    elif good <= level:
        verdict = Verdict.GOOD
        why = f"{mean}: loses less than {100 * settings.margin:g} points (anytime p = {good:.2g})"
    return Decision(verdict, why, n, worse, good)
