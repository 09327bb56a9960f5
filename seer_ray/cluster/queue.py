"""The requests of a run that wait for a worker, in the order that ``assignments`` describes.

Nothing here looks at all that waits: heaps keep the orders, and what has changed since it was put into one is
passed by when it comes to the top.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from seer_ray.cluster.suspects import Suspects
from seer_ray.engine.request import Request
from seer_ray.results.chain import Chain

AHEAD = 256
"""Requests that are read beyond those that are wanted now."""


@dataclass(eq=False, slots=True)
class Problem:
    """What the samples of one problem have in common."""

    id: str
    order: int
    worker: str | None = None
    """Where its prompt pages are."""
    longest: int = 0
    """Tokens of its longest sample so far."""
    fresh: list[Pending] = field(default_factory=list)
    """Its samples in the queue that have not been begun, in order."""
    unfinished: int = 0
    """Its samples that are not done."""
    convicted: bool = False
    """A request of it was given up: the others come last, and are alone."""


@dataclass(eq=False, slots=True)
class Pending:
    """A request that is not done."""

    request: Request
    order: int
    problem: Problem
    chain: Chain
    """How far it is."""
    failures: int = 0
    """Workers that died with it since its last new token: it is a suspect."""
    moved: bool = False
    """A worker gave it back since its last new token: it stays where it is until the next."""
    spared: bool = False
    """A worker died in which it only waited: the next one makes it a suspect."""
    proven: bool = False
    """It has brought tokens since its worker got it."""
    worker: str | None = None
    """That has it; None: it is in the queue."""


def _order(item: Problem | Pending) -> int:
    return item.order


Heap = list[tuple[int, int, Problem]]
"""Problems with fresh requests, and some that have changed since."""


class RequestQueue:
    """Three queues: suspects; begun requests, the longest first; the fresh ones by problem."""

    def __init__(self) -> None:
        self.problems = 0
        """Problems of which there have been requests."""
        self._problems: dict[str, Problem] = {}
        self._begun: list[tuple[int, int, Pending]] = []  # a heap
        self.suspects = Suspects()
        self._fresh: dict[int, Problem] = {}  # by order: those with fresh requests
        self._fresh_requests = 0
        self._first: Heap = []  # (0, order): all of them
        self._at_home: dict[str | None, Heap] = {}  # (0, order): by the worker that has the prompt
        self._gone: set[str] = set()
        self._longest: Heap | None = None  # (-longest, order): from the first time that it is asked for

    def __len__(self) -> int:
        return len(self._begun) + len(self.suspects) + self._fresh_requests

    def problem(self, id: str) -> Problem:
        """The one of this id, made where it is new."""
        if (problem := self._problems.get(id)) is None:
            problem = self._problems[id] = Problem(id, self.problems)
            self.problems += 1
        return problem

    def done(self, problem: Problem) -> None:
        """A sample of it is; of a problem without others nothing is kept."""
        problem.unfinished -= 1
        if not problem.unfinished:
            del self._problems[problem.id]

    def add(self, pending: Pending) -> None:
        """One that may be with others, and is no suspect."""
        pending.worker = None
        if length := len(pending.chain.tokens):
            heapq.heappush(self._begun, (-length, pending.order, pending))
        elif pending.problem.convicted:
            self.suspects.add(pending, alone=True)
        else:
            insort(pending.problem.fresh, pending, key=_order)
            self._fresh_requests += 1
            if len(pending.problem.fresh) == 1:
                self._list(pending.problem)

    def has_other(self) -> bool:
        """Whether there is anything that is no suspect."""
        return bool(self._begun or self._fresh)

    def convict(self, problem: Problem) -> None:
        """A request of it was given up."""
        problem.convicted = True
        self.suspects.convict()
        while problem.fresh:
            self.suspects.add(self._take_fresh(problem), alone=True)

    def take_unlike(self) -> Pending | None:
        """A request that is as far from suspicion as there is: what is wrong with a problem may be wrong with
        its neighbours."""
        if self._fresh:
            return self._take_fresh(next(reversed(self._fresh.values())))
        return heapq.heappop(self._begun)[-1] if self._begun else self.suspects.take_unlike()

    def take(self, worker: str, longest_first: bool) -> Pending | None:
        """The next request for a worker that may have others.

        Args:
            worker: Its name.
            longest_first: Of the fresh requests, those whose problem has the longest sample; else those whose
                prompt the worker has, then those whose prompt nobody has, then anybody's.
        """
        if self._begun:
            pending = heapq.heappop(self._begun)[-1]
            self._claim(pending.problem, worker)
            return pending
        problem = self._growing() if longest_first else self._nearest(worker)
        if problem is None:
            return None
        self._claim(problem, worker)
        return self._take_fresh(problem)

    def grew(self, problem: Problem, length: int) -> None:
        """A sample of it has so many tokens now."""
        if length > problem.longest:
            problem.longest = length
            if self._longest is not None and problem.fresh:
                if self._overgrown(self._longest):
                    self._rank()
                else:
                    heapq.heappush(self._longest, (-length, problem.order, problem))

    def clear(self) -> list[Pending]:
        """Takes everything out."""
        fresh = [pending for problem in self._fresh.values() for pending in problem.fresh]
        everything = [*self.suspects.clear(), *(pending for *_, pending in self._begun), *fresh]
        for problem in self._fresh.values():
            problem.fresh.clear()
        for collection in (self._begun, self._fresh, self._first, self._at_home):
            collection.clear()
        self._longest, self._fresh_requests = None, 0
        return everything

    def forget(self, worker: str) -> None:
        """A worker is gone, and the prompt pages that it had."""
        self._gone.add(worker)
        for _, _, problem in self._at_home.pop(worker, ()):
            if problem.fresh and problem.worker == worker:
                problem.worker = None
                self._push_home(problem)

    def _nearest(self, worker: str) -> Problem | None:
        for home in (worker, None):
            heap = self._at_home.get(home)
            while heap:
                problem = heap[0][-1]
                if problem.fresh and problem.worker == home:
                    return problem
                heapq.heappop(heap)
            self._at_home.pop(home, None)
        return self._foremost()

    def _foremost(self) -> Problem | None:
        while self._first:
            problem = self._first[0][-1]
            if problem.fresh:
                return problem
            heapq.heappop(self._first)
        return None

    def _growing(self) -> Problem | None:
        if self._longest is None:
            self._rank()
        assert self._longest is not None
        while self._longest:
            length, _, problem = self._longest[0]
            if problem.fresh and -length == problem.longest:
                return problem
            heapq.heappop(self._longest)
        return None

    def _rank(self) -> None:
        fresh = self._fresh.values()
        self._longest = [(-problem.longest, problem.order, problem) for problem in fresh]
        heapq.heapify(self._longest)

    def _overgrown(self, heap: Heap) -> bool:
        """Whether most of it has changed: then it is made again."""
        return len(heap) > 4 * len(self._fresh) + AHEAD

    def _take_fresh(self, problem: Problem) -> Pending:
        pending = problem.fresh.pop(0)
        self._fresh_requests -= 1
        if not problem.fresh:
            del self._fresh[problem.order]
        return pending

    def _claim(self, problem: Problem, worker: str) -> None:
        if problem.worker is None:
            problem.worker = worker
            if problem.fresh:
                self._push_home(problem)

    def _list(self, problem: Problem) -> None:
        self._fresh[problem.order] = problem
        if problem.worker in self._gone:
            problem.worker = None
        if self._overgrown(self._first):
            self._first = [(0, other.order, other) for other in self._fresh.values()]
            heapq.heapify(self._first)
        else:
            heapq.heappush(self._first, (0, problem.order, problem))
        self._push_home(problem)
        if self._longest is not None:
            heapq.heappush(self._longest, (-problem.longest, problem.order, problem))

    def _push_home(self, problem: Problem) -> None:
        heapq.heappush(self._at_home.setdefault(problem.worker, []), (0, problem.order, problem))


class Unread:
    """Requests that are read when they are needed, those that were begun before all others.

    Args:
        requests: One after the other; None: one that no worker is to have.
        count: How many there will be.
    """

    def __init__(self, requests: Iterable[Request | None], count: int) -> None:
        self.left = count
        """That are not read yet."""
        self._requests = iter(requests)

    def __iter__(self) -> Iterator[Request]:
        """Reads on."""
        for request in self._requests:
            self.left -= 1
            if request is not None:
                yield request
        assert not self.left, f"{self.left} requests fewer than were told of"
