"""Storage that takes nothing for a while: when to try again, when to give up, and what a person is told."""

from __future__ import annotations

from collections.abc import Callable

from seer_ray.analysis.words import duration
from seer_ray.config.errors import FolderGone, JobError, NotWritten
from seer_ray.results.folder import RunFolder

MAX_FAILURES = 10
"""Writes to a disk that fail in a row before the job gives up: it does not come back by itself."""
LONGEST = 60.0
"""Seconds between two tries, at most."""


class Outage:
    """The writes that failed in a row.

    Args:
        folder: Where they go.
        interval: Seconds until the first next try.
        limit: Seconds after which storage that is not a disk of this machine is given up.
        note: Told when it begins and when it is over.
        clock: Seconds, from any moment on.
    """

    def __init__(
        self,
        folder: RunFolder,
        interval: float,
        limit: float,
        note: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._folder, self._interval, self._limit = folder, max(1.0, interval), limit
        self._note, self._clock = note, clock
        self._began = 0.0
        self.given_up = False
        self.failures = 0

    @property
    def remote(self) -> bool:
        """Whether storage may come back by itself."""
        return self._folder.path is None

    def failed(self, error: OSError) -> float:
        """One more: seconds until the next try.

        Raises:
            NotWritten: It has been away for too long.
            FolderGone: There is no folder any more.
        """
        failure, now = self._folder.failure(error), self._clock()
        self._began = self._began if self.failures else now
        self.failures += 1
        too_long = now - self._began >= self._limit if self.remote else self.failures >= MAX_FAILURES
        if too_long or isinstance(failure, FolderGone):
            self.given_up = True
            raise self.final(error) from error
        if not self.remote:
            self._note(f"{failure}; tried again in {self._interval:.0f} s")
            return self._interval
        if self.failures == 1:
            limit = duration(self._limit)
            self._note(f"{failure}; tried again for {limit}, meanwhile finished rows wait on this machine")
        return min(self._interval * 2.0 ** min(self.failures - 1, 10), LONGEST)

    def over(self) -> None:
        """A write came through."""
        if self.failures and self.remote:
            passed = duration(self._clock() - self._began)
            self._note(f"{self._folder.uri}: can be written again, after {passed}")
        self.failures = 0

    def final(self, error: OSError) -> JobError:
        """That there is no next try, in words."""
        failure = self._folder.failure(error)
        if self._folder.kept_rows:
            return NotWritten(f"{failure}; finished rows wait in {self._folder.kept_rows}")
        return failure
