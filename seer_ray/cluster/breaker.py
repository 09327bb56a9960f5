"""A circuit breaker: a run ends whose workers die whenever they hold requests, and does not blame these."""

from __future__ import annotations

from collections.abc import Set

SHORT_LIFE = 60.0
"""Seconds. A worker that brings tokens after so long is no worse than one that finishes a request."""
PATIENCE = 20
"""Deaths in a row, times workers, that are borne where workers bring tokens before they die."""
AGREE = 2
"""Problems, and one more for each worker, that must have killed a worker with none to share the blame, if
there are so many: a poisonous one may have such neighbours, one from elsewhere shows that workers work."""


class CircuitBreaker:
    """Collects what speaks against the workers since the last request that was finished."""

    def __init__(self) -> None:
        self.deaths = 0
        """In a row."""
        self.worked = False
        """A worker has finished a request."""
        self._bad: set[str] = set()  # problems of which a request was given up
        self._evidence: set[str] = set()  # problems, since the last request that was finished

    def completed(self) -> None:
        """A worker finished a request: workers can work."""
        self.worked, self.deaths = True, 0
        self._evidence.clear()

    def progressed(self, seconds: float) -> None:
        """A worker brought tokens, so many seconds after it was ready."""
        if seconds > SHORT_LIFE:
            self.deaths = 0

    def died(self, problems: Set[str], alone: bool, given_up: Set[str], workers: int, there_are: int) -> bool:
        """A worker died. Whether the breaker is open now.

        Args:
            problems: Of the requests that it held.
            alone: It was one request, of which no token came.
            given_up: Problems of those that are given up by this.
            workers: How many there may be.
            there_are: Problems that the run has.
        """
        if problems - self._bad:
            self.deaths += 1
            if alone or given_up:
                self._evidence.add(min(problems))
        self._bad |= given_up
        enough = max(AGREE, min(AGREE + workers, there_are))
        return len(self._evidence) >= enough or self.deaths >= PATIENCE * workers

    @property
    def convicts(self) -> bool:
        """Whether it is the workers' fault, with nothing left to try: several died, and none lived."""
        return not self.worked and len(self._evidence) >= AGREE
