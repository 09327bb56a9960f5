"""Proportions with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seer_ray.analysis import clustered
from seer_ray.analysis.outcomes import Array, Outcomes


@dataclass(frozen=True)
class Estimate:
    """A mean of values within [0, 1]. NaN: cannot be known (one problem has no spread)."""

    value: float
    stderr: float
    """Clustered by problem."""
    low: float
    high: float
    problems: int
    """That it rests on."""
    samples: int


def proportion(values: Array, confidence: float = 0.95) -> Estimate | None:
    """Mean of values within [0, 1].

    Args:
        values: [problems, samples]; NaN: not there, and in no denominator

    Returns:
        None: there is no value.
    """
    counts = (~np.isnan(values)).sum(-1)
    if not counts.sum():
        return None
    found = clustered.proportion(np.nansum(values, -1), counts, confidence)
    value, stderr, low, high = (float(x) for x in found)
    return Estimate(value, stderr, low, high, int((counts > 0).sum()), int(counts.sum()))


def accuracy(outcomes: Outcomes, confidence: float = 0.95) -> Estimate | None:
    """avg@k: right samples. Errors count as wrong; missing and ungraded samples do not count."""
    return proportion(outcomes.correct, confidence)
