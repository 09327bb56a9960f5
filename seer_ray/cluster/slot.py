"""A place in the cluster where one worker after another may live."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from seer_ray.cluster.actors import WorkerActors

BACKOFF, LONGEST = 1.0, 60.0
"""Seconds before the second start of a row; doubles, up to so many."""
PLACING = 10.0
"""Seconds after which a worker that has no place in the cluster is told of."""


@dataclass
class Slot:
    """One place."""

    number: int
    generation: int = -1
    failures: int = 0
    """Workers in a row of which no token came."""
    failed_starts: int = 0
    """Of them, those in a row that did not come up."""
    not_before: float = 0.0
    given_up: bool = False
    retired: bool = False
    """The cluster has no room for it now, or there is nothing for it to do."""
    actors: WorkerActors | None = None
    node: str | None = None
    """Of a worker that is ready."""
    placed: bool = False
    """Its processes are there."""
    homeless: bool = False
    """It has waited for a place for long."""
    ready: bool = False
    call: Any = None
    """The one call of rank 0 in flight."""
    called: float = 0.0

    @property
    def actor(self) -> Any:
        """Of rank 0; None: there is no worker."""
        return self.actors.first if self.actors is not None else None

    @property
    def calls(self) -> list[Any]:
        """Of all ranks; that of rank 0, which knows best what is wrong, comes first."""
        mine = [self.call] if self.call is not None else []
        return mine + (self.actors.following if self.actors is not None else [])

    @property
    def name(self) -> str:
        return f"w{self.number}" + (f".{self.generation}" if self.generation else "")

    def begin(self, actors: WorkerActors) -> None:
        """The next worker starts."""
        self.generation += 1
        self.actors, self.placed, self.homeless = actors, False, False
        self.call, self.called = actors.started, time.monotonic()

    def failed(self, limit: int | None) -> None:
        """Its worker died, by its own fault.

        Args:
            limit: Failed starts in a row after which it is given up; None: never.
        """
        self.failures += 1
        if not self.ready:
            self.failed_starts += 1
            self.given_up = limit is not None and self.failed_starts >= limit
        self.not_before = time.monotonic() + min(LONGEST, BACKOFF * 2 ** (self.failures - 1))

    def end(self) -> None:
        """There is no worker any more."""
        self.actors, self.call, self.node = None, None, None
        self.ready = self.placed = self.homeless = False
