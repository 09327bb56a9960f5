"""What steps take, learned while they run: linear in what they compute and read, at this point of the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FORGET = 0.95
"""Weight of a measurement beside the next one: about twenty count."""
LONG = 0.998, 0.05
"""The same of the long memory, and the weight of that: it knows sizes that were long ago."""
RIDGE = 1e-4
"""What makes sizes that never vary share what they cost."""
EARLY = 8
"""Measurements after which one that is half of what was expected is no longer the first right one."""
EVERY = 4
"""Measurements between two solutions, which take the host longer."""
FARTHEST = 1.5
"""A measurement counts as at most so many times what was expected: others run on the machine, too."""


class StepTime:
    """Seconds of a step as a sum over its sizes, by least squares of relative errors; none of them costs less
    than nothing. What is measured first (compiling, first touch of memory) does not count."""

    def __init__(self) -> None:
        self._scale: Array | None = None
        """Of the sizes, those that were measured first."""
        self._weights: Array = np.zeros(0)
        self._memories: list[tuple[float, float, Array, Array]] = []
        self.measured = 0

    def expected(self, *size: float) -> float:
        """Seconds, of a kind of step that was measured."""
        return float(self._features(size) @ self._weights)

    def slope(self, of: int) -> float:
        """Seconds that one more of a size costs, from 0 on."""
        assert self._scale is not None
        return float(self._weights[of + 1] / self._scale[of + 1])

    def take(self, seconds: float, *size: float) -> None:
        """A measurement."""
        self.measured += 1
        if self.measured <= 2 or (self.measured <= EARLY and seconds < self.expected(*size) / 2):
            # What was measured before was something else.
            self._scale = np.maximum(1.0, [1.0, *size])
            count = len(self._scale)
            self._memories = [
                (forget, weight, np.zeros((count, count)), np.zeros(count))
                for forget, weight in ((FORGET, 1.0), LONG)
            ]
        else:
            seconds = min(seconds, FARTHEST * self.expected(*size))
        features = self._features(size) / seconds
        for forget, _, squares, products in self._memories:
            squares *= forget
            products *= forget
            squares += np.outer(features, features)
            products += features
        if self.measured > EARLY and self.measured % EVERY:
            return
        weighed = [(weight * squares, weight * products) for _, weight, squares, products in self._memories]
        self._weights = _not_negative(*(np.sum(each, axis=0) for each in zip(*weighed, strict=True)))

    def _features(self, size: Sequence[float]) -> Array:
        assert self._scale is not None
        return np.array([1.0, *size]) / self._scale


def _not_negative(squares: Array, products: Array) -> Array:
    """The least squares without negative weights, one after the other left out."""
    kept = np.arange(len(products))
    squares = squares + np.eye(len(products)) * RIDGE * np.trace(squares)
    while True:
        found = np.linalg.solve(squares[np.ix_(kept, kept)], products[kept])
        if (found >= 0).all():
            weights = np.zeros(len(products))
            weights[kept] = found
            return weights
        kept = np.delete(kept, int(found.argmin()))
