"""Requests that a worker died with: each is tried with nobody else to blame before it becomes an error row.

A suspect that fails for the first times may join a worker whose other chains have got on since they came: if
that worker dies, it is the suspect. With the failure that would make it an error row it is alone. Suspects
of a problem of which one was given up come when nothing else is left, as each is likely to cost a worker.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seer_ray.cluster.queue import Pending


class Suspects:
    """Those that are in no worker, in order."""

    def __init__(self) -> None:
        self._joining: deque[Pending] = deque()
        self._alone: deque[Pending] = deque()
        self._last: deque[Pending] = deque()

    def __len__(self) -> int:
        return len(self._joining) + len(self._alone) + len(self._last)

    def add(self, pending: Pending, alone: bool) -> None:
        """``alone``: it must be."""
        if pending.problem.convicted:
            self._last.append(pending)
        else:
            (self._alone if alone else self._joining).append(pending)

    def convict(self) -> None:
        """A problem was convicted: its requests come last."""
        for queue in (self._joining, self._alone):
            for pending in [pending for pending in queue if pending.problem.convicted]:
                queue.remove(pending)
                self._last.append(pending)

    def has(self, empty: bool, last: bool) -> bool:
        """Whether ``take`` has one."""
        return bool(self._joining or (empty and (self._alone or (last and self._last))))

    def take(self, empty: bool, last: bool) -> Pending | None:
        """The next one for a worker.

        Args:
            empty: The worker holds nothing.
            last: There is nothing else to do.
        """
        if empty and self._alone:
            return self._alone.popleft()
        if self._joining:
            return self._joining.popleft()
        return self._last.popleft() if empty and last and self._last else None

    def take_unlike(self) -> Pending | None:
        """The last one, of a problem of which none was given up if there is one."""
        queue = next((q for q in (self._joining, self._alone, self._last) if q), None)
        return queue.pop() if queue is not None else None

    def clear(self) -> list[Pending]:
        """Takes everything out."""
        everything = [*self._joining, *self._alone, *self._last]
        for queue in (self._joining, self._alone, self._last):
            queue.clear()
        return everything
