"""Means of values that come by document, with their intervals: documents are the independent draws."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from seer_ray.analysis import clustered


@dataclass(frozen=True)
class Mean:
    """A weighted mean. None: not known, as one document has no spread."""

    value: float
    stderr: float | None
    """Clustered by document."""
    low: float | None
    """Of its interval: Student's, with documents - 1 degrees of freedom."""
    high: float | None
    documents: int


def mean_of(values: Iterable[tuple[Hashable, float, float]], confidence: float = 0.95) -> Mean | None:
    """Of (document, value, weight); those of one document are no independent evidence. None: there is none.

    ``clustered.ratio`` of weighted sums; not for shares near 0 or 1, see ``clustered.proportion``.
    """
    sums: dict[Hashable, float] = {}
    weights: dict[Hashable, float] = {}
    for document, value, weight in values:
        sums[document] = sums.get(document, 0.0) + value * weight
        weights[document] = weights.get(document, 0.0) + weight
    if not sums:
        return None
    counts = list(weights.values())
    value, error = (float(x) for x in clustered.ratio(list(sums.values()), counts))
    if not np.isfinite(error):
        return Mean(value, None, None, None, len(sums))
    half = float(clustered.quantile(0.5 + confidence / 2, counts)) * error
    return Mean(value, error, value - half, value + half, len(sums))
