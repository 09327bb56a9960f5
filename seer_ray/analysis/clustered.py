"""Estimates from samples that come in problems: samples of one problem are no independent evidence.

Everything here works on arrays whose last axis is problems, and gives arrays without that axis, so that
thousands of simulated runs are one call. A problem with count 0 is not there.

Standard errors are cluster-robust with the G/(G-1) correction, quantiles are Student's with G-1 degrees of
freedom (G problems). Intervals are not value ± t·se: that is far too short where nearly all samples agree,
and has no length at all where all do. They are score intervals, with the number of samples replaced by the
number of independent samples that would have the same standard error.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from seer_ray.analysis.columns import Names

Array = NDArray[np.float64]
PRIOR = 1.0
"""See ``effective``."""
BISECTIONS = 44
"""Halvings of an interval of length 2 or 1: below 1e-12."""


def ratio(sums: ArrayLike, counts: ArrayLike) -> tuple[Array, Array]:
    """Sum over sum, and its standard error clustered by problem (linearised: Cochran 1977, 6.3).

    Args:
        sums: of each problem, [..., problems]
        counts: what ``sums`` is divided by, not negative, [..., problems]

    Returns:
        value and standard error, [...]; NaN without samples, or for the error with fewer than two problems.
    """
    sums, counts = np.asarray(sums, float), np.asarray(counts, float)
    total, problems = counts.sum(-1), (counts > 0).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = sums.sum(-1) / total
        spread = ((sums - value[..., None] * counts) ** 2).sum(-1)
        error = np.sqrt(problems / (problems - 1) * spread) / total
    return value, np.where(problems > 1, error, np.nan)


def effective(variance: Array, stderr: Array, counts: ArrayLike) -> Array:
    """Independent samples with the same standard error of their mean.

    How samples of a problem hang together is itself estimated, and from the few problems in which anything
    varies. So the estimate begins at the worst, that they hang together entirely, with the weight of
    ``PRIOR`` problems (one) in which all samples differ from the mean by 1. It has no weight with one
    sample a problem.

    Args:
        variance: of one independent sample, [...]
        stderr: clustered, [...]
        counts: samples of each problem, [..., problems]
    """
    counts = np.asarray(counts, float)
    problems, total = (counts > 0).sum(-1), counts.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = total / problems
        together = np.nan_to_num(stderr) ** 2 * total**2 + PRIOR * each**2
        inflation = together / (variance * total + PRIOR * each)
    return np.minimum(total / inflation, total)


def quantile(probability: float, counts: ArrayLike) -> Array:
    """Of Student's t with problems - 1 degrees of freedom; NaN with fewer than two problems."""
    from scipy.special import stdtrit

    problems = (np.asarray(counts) > 0).sum(-1)
    return np.where(problems > 1, stdtrit(np.maximum(problems - 1, 1), probability), np.nan)


def proportion(
    sums: ArrayLike, counts: ArrayLike, confidence: float = 0.95
) -> tuple[Array, Array, Array, Array]:
    """A mean of values within [0, 1]: value, clustered standard error, lower and upper end of its interval.

    Wilson's score interval at the effective sample size (for clustered data: Dean and Pagano 2015).
    """
    value, error = ratio(sums, counts)
    size = effective(value * (1 - value), error, counts)
    t2 = quantile(0.5 + confidence / 2, counts) ** 2
    with np.errstate(invalid="ignore"):
        centre = (value + t2 / (2 * size)) / (1 + t2 / size)
        half = np.sqrt(t2 * value * (1 - value) / size + t2**2 / (4 * size**2)) / (1 + t2 / size)
    # It holds the value: what is beyond, at 0 and 1, is rounding.
    return value, error, np.clip(centre - half, 0, value), np.clip(centre + half, value, 1)


def score(gained: Array, lost: Array, size: Array, difference: ArrayLike) -> Array:
    """Tango's score statistic for a difference of two paired proportions (Statistics in Medicine 1998).

    Its variance is that under the hypothesis, which is above 0 also where no pair was seen to differ.

    Args:
        gained: fraction of pairs that only the setting has right, [...]
        lost: fraction of pairs that only the baseline has right, [...]
        size: effective number of pairs, [...]
        difference: hypothesis for setting - baseline, within (-1, 1)

    Returns:
        How many standard errors the observed difference lies above the hypothesis, [...].
    """
    d = np.asarray(difference, float)
    b = -gained - lost + (2 - gained + lost) * d
    c = -lost * d * (1 - d)
    lost_then = (np.sqrt(np.maximum(b**2 - 8 * c, 0)) - b) / 4
    variance = 2 * lost_then + d * (1 - d)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (gained - lost - d) * np.sqrt(size / np.maximum(variance, 0))
    return np.where(np.isclose(gained - lost, d, atol=1e-15), 0.0, found)


def score_interval(gained: Array, lost: Array, size: Array, critical: Array) -> tuple[Array, Array]:
    """The differences whose score statistic is within ± ``critical``: both ends, [...]."""
    value = gained - lost

    def end(sign: int) -> Array:
        """The lower one for 1, the upper one for -1."""
        far, near = np.full_like(value, -sign), value.copy()
        for _ in range(BISECTIONS):
            middle = (far + near) / 2
            outside = sign * score(gained, lost, size, middle) > critical
            far, near = np.where(outside, middle, far), np.where(outside, near, middle)
        return np.where(np.isfinite(critical), near, np.nan)

    return end(1), end(-1)


def sign_flip(sums: ArrayLike) -> float:
    """Two-sided exact p-value of "swapping the two settings on any problem changes nothing".

    Under it every problem's sum of differences is as likely with the other sign. The distribution of the
    total over all signs is computed by convolution, not sampled. With one sample a problem this is the
    exact McNemar test; with more, it keeps its level where samples of one problem hang together, which
    McNemar does not.

    Args:
        sums: whole numbers, [problems]
    """
    steps = np.abs(np.rint(np.asarray(sums, float))).astype(int)
    total = int(abs(np.rint(np.asarray(sums, float)).astype(int).sum()))
    chances = np.ones(1)
    for step in steps[steps > 0]:
        # Offset grows by `step`: index 0 stays the lowest total.
        wider = np.zeros(len(chances) + 2 * step)
        wider[: len(chances)] += chances / 2
        wider[2 * step :] += chances / 2
        chances = wider
    centre = (len(chances) - 1) // 2
    return float(min(1.0, chances[np.abs(np.arange(len(chances)) - centre) >= total].sum()))


class ClusteredMean:
    """Mean and standard error of values that come as rows do, each of a problem; ``ratio`` of their sums."""

    def __init__(self) -> None:
        self._problems = Names()
        self._sums, self._counts = array("d"), array("d")

    def add(self, problems: pa.Array, values: Array) -> None:
        """More values, [rows], each of the problem of that name."""
        places = self._problems.numbers(problems)
        for kept, more in ((self._sums, values), (self._counts, 1.0)):
            kept.extend([0.0] * (len(self._problems) - len(kept)))
            np.add.at(np.frombuffer(kept), places, more)

    @property
    def total(self) -> float:
        """Sum of the values."""
        return math.fsum(self._sums)

    @property
    def mean(self) -> float | None:
        """None: no value yet."""
        return self._ratio(0)

    @property
    def stderr(self) -> float | None:
        """Of the mean, in the same unit. None: fewer than two problems."""
        return self._ratio(1)

    @property
    def interval(self) -> tuple[float, float] | tuple[None, None]:
        """Of the mean of values within [0, 1], see ``proportion``. None: fewer than two problems."""
        _, _, low, high = proportion(np.array(self._sums), np.array(self._counts))
        return (float(low), float(high)) if np.isfinite(low) else (None, None)

    def _ratio(self, which: int) -> float | None:
        found = float(ratio(np.array(self._sums), np.array(self._counts))[which])
        return found if np.isfinite(found) else None
