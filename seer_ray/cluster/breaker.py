"""A circuit breaker: a run ends whose workers die whenever they hold requests, and does not blame these."""

from __future__ import annotations

from collections.abc import Set

SHORT_LIFE = 60.0
"""Seconds. A worker that brings tokens after so long is no worse than one that finishes a request."""
PATIENCE = 5
"""Times as many deaths are borne where workers bring tokens before they die."""


class CircuitBreaker:
    """Counts the deaths of workers since the last request that was finished.

    A death is not counted where it is known why: every request that the worker held belongs to a problem of
    which one has been given up.

    Args:
        max_attempts: Deaths that one request may cost, after which it is tried alone: it takes one more, of
            another problem, to open the breaker.
    """

    def __init__(self, max_attempts: int) -> None:
        self.limit = max(3, max_attempts) + 1
        self.deaths = 0
        """In a row."""
        self.bad: set[str] = set()
        """Problems of which a request was given up."""
        self._barren = 0  # deaths since the last token

    def completed(self) -> None:
        """A worker finished a request: workers can work."""
        self.deaths = self._barren = 0

    def progressed(self, seconds: float) -> None:
        """A worker brought tokens, so many seconds after it was ready."""
        self._barren = 0
        if seconds > SHORT_LIFE:
            self.deaths = 0

    def died(self, problems: Set[str]) -> bool:
        """A worker died that held requests of these problems. Whether the breaker is open now."""
        if problems - self.bad:
            self.deaths += 1
            self._barren += 1
        return self._barren >= self.limit or self.deaths >= PATIENCE * self.limit
