"""A circuit breaker: a run ends whose workers die whenever they hold requests, and does not blame these.

Open after so many deaths in a row without a token from anywhere. Half open between the first of them and the
next token: one worker at a time is tried. What was given its requests before a death that is counted dies of
the same cause, as far as anybody knows: the deaths of a batch of workers are one.

Where workers have worked before, a request may be to blame that is tried at last, with nothing beside it that
would bring a token. Then only deaths count that no request explains: of different problems, alone.
"""

from __future__ import annotations

from collections.abc import Set

SHORT_LIFE = 60.0
"""Seconds. A worker that brings tokens after so long is no worse than one that finishes a request."""
PATIENCE = 20
"""Deaths in a row, times workers, that are borne where workers bring tokens before they die."""


class CircuitBreaker:
    """Collects what speaks against the workers since the last token.

    Args:
        limit: Deaths that open it.
        worked: Workers are known to work.
    """

    def __init__(self, limit: int, worked: bool = False) -> None:
        self._limit, self._worked = limit, worked
        self.total = 0
        """Deaths so far that were counted: the moment at which a worker gets its requests."""
        self.row = 0
        """Of them in a row."""
        self._short = 0  # in a row, with tokens or without
        self._alone: set[str] = set()  # problems of which one request killed, alone in its worker
        self._mixed: list[Set[str]] = []  # of the other deaths
        self._bad: set[str] = set()  # of which a request was given up

    def completed(self) -> None:
        """A worker finished a request."""
        self._short = 0

    def progressed(self, seconds: float) -> None:
        """A worker brought tokens, so many seconds after it was ready."""
        if seconds > SHORT_LIFE:
            self._short = 0
        self._worked, self.row = True, 0
        self._alone.clear()
        self._mixed.clear()

    def died(self, problems: Set[str], alone: bool, given_up: Set[str], since: int, workers: int) -> bool:
        """A worker died with requests. Whether the breaker is open now.

        Args:
            problems: Of those that may have killed it.
            alone: It held one request.
            given_up: Problems of those that are given up by this.
            since: ``total`` when it got the last of them.
            workers: How many there may be.
        """
        explained = self._worked and bool(problems) and problems <= self._bad
        self._bad |= given_up
        if explained:
            return False
        self._short += 1
        if since >= self.total:
            self.total += 1
            self.row += 1
            if alone:
                self._alone |= problems
            else:
                self._mixed.append(set(problems))
        return self.against >= self._limit or self._short >= PATIENCE * workers

    @property
    def against(self) -> int:
        """Deaths in a row that speak against the workers."""
        if not self._worked:
            return self.row
        told, found = set(self._alone), len(self._alone)
        for problems in self._mixed:
            if told.isdisjoint(problems):
                found += 1
                told |= problems
        return found

    @property
    def reason(self) -> str:
        """Why it is open, in words."""
        if self.against < self._limit and self._short >= PATIENCE:
            return f"{self._short} workers in a row died with requests and finished none"
        deaths = "1 worker" if self.row == 1 else f"{self.row} workers in a row"
        return f"{deaths} died with requests before another token came (cluster.max_deaths={self._limit})"

    @property
    def half_open(self) -> bool:
        """Workers are to be tried one at a time."""
        return self.row > 0

    @property
    def last_chance(self) -> bool:
        """The next death opens it: what a worker gets now must be as far from suspicion as there is."""
        return 0 < self._limit - 1 <= self.against

    @property
    def convicts(self) -> bool:
        """Whether it is the workers' fault if every request has been given up."""
        return not self._worked
