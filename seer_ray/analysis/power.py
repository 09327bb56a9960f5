"""How much more data an undecided comparison needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from seer_ray.analysis.paired import Difference, PairedOutcomes, non_inferiority

MOST = 64
"""Samples a problem beyond which more problems are the better advice."""


@dataclass(frozen=True)
class More:
    """What would show, with the chance ``power``, that a setting keeps the accuracy, if it does."""

    samples: int | None
    """More samples of each problem. None: they would not do, the problems differ too much."""
    problems: int
    """Or so many more problems, with as many samples each as now."""
    assumed: float
    """True difference that this assumes: the loss that was seen, or half the margin if that may be noise."""
    at_least: bool
    """One sample a problem does not tell how samples hang together: ``samples`` assumes not at all."""
    power: float

    @property
    def text(self) -> str:
        least = "at least " if self.at_least else ""
        problems = f"{self.problems:,} more problems"
        if self.samples is None:
            return f"run {problems}"
        plural = "" if self.samples == 1 else "s"
        return f"run {least}{self.samples} more sample{plural} of each problem, or {problems}"


def more(
    pairs: PairedOutcomes, found: Difference, margin: float, alpha: float, power: float = 0.8
) -> More | None:
    """Data that the test of non-inferiority would need.

    Variances between and within problems come from a one-way analysis of the paired differences. The fraction
    of pairs that differ is taken with half a pair added on each side (Agresti and Min 2005), since none
    seen does not mean none. The test takes the variance that there is at the margin, and so may ask for more,
    above all where all pairs agree: then as many problems more as pass it if they are like those seen.

    Returns:
        None: no amount would help if the truth is near what was seen: it lies below the margin, and the
        interval leaves out that nothing is lost.
    """
    counts = pairs.counts
    problems, total = int((counts > 0).sum()), int(counts.sum())
    if problems < 2:
        return None
    if found.value <= -margin and found.high < 0:
        return None
    assumed = min(0.0, found.value)
    if found.high >= 0:
        # What was seen may be noise, and near the margin it would ask for samples without end.
        assumed = max(assumed, -margin / 2)
    each = total / problems
    within, between = _variances(pairs.difference, counts)
    least = (found.gained + found.lost + 1) / (total + 1) - found.value**2
    scale = max(1.0, least / (within + between)) if within + between > 0 else 0.0
    within, between = (within * scale, between * scale) if scale else (least, 0.0)
    normal = NormalDist()
    target = ((assumed + margin) / (normal.inv_cdf(1 - alpha) + normal.inv_cdf(power))) ** 2
    room = problems * target - between
    wanted = math.ceil(within / room) if room > 0 else MOST + 1
    more_problems = math.ceil((between + within / each) / target) - problems
    repeated = _repeated(pairs, margin, alpha, problems)
    return More(
        samples=max(1, math.ceil(wanted - each)) if wanted <= MOST and more_problems >= repeated else None,
        problems=max(1, more_problems, repeated),
        assumed=assumed,
        at_least=total == problems,
        power=power,
    )


def _repeated(pairs: PairedOutcomes, margin: float, alpha: float, problems: int) -> int:
    """More problems like those seen until the test of non-inferiority is passed; 0: not to be told."""
    normal = NormalDist()
    p = non_inferiority(pairs, margin).p_value
    if not 0 < p < 0.5:
        return 0
    # The statistic grows with the root of the number of problems.
    return math.ceil(problems * (normal.inv_cdf(alpha) / normal.inv_cdf(p)) ** 2) - problems


def _variances(differences: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Of single differences within problems, and of problem means beyond that."""
    several = counts > 1
    known = differences[counts > 0]
    n = counts[counts > 0]
    means = np.nansum(known, -1) / n
    spread = float(means.var(ddof=1))
    if not several.any():
        return spread, 0.0
    squares = np.nansum((known - means[:, None]) ** 2)
    within = float(squares / (n - 1).sum())
    return within, max(0.0, spread - within * float((1 / n).mean()))
