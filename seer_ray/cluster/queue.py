"""The requests of a run that wait for a worker, in the order that ``assignments`` describes."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from dataclasses import dataclass, field

from seer_ray.engine.request import Request
from seer_ray.results.chain import Chain


@dataclass(eq=False)
class Problem:
    """What the samples of one problem have in common."""

    order: int
    worker: str | None = None
    """Where its prompt pages are."""
    longest: int = 0
    """Tokens of its longest sample so far."""
    fresh: list[Pending] = field(default_factory=list)
    """Its samples in the queue that have not been begun, in order."""
    suspect: bool = False
    """A request of it was given up: the others come last."""


@dataclass(eq=False)
class Pending:
    """A request that is not done."""

    request: Request
    order: int
    problem: Problem
    chain: Chain
    """How far it is."""
    failures: int = 0
    """Workers that died with it since its last new token."""
    worker: str | None = None
    """That has it; None: it is in the queue."""


def _order(item: Problem | Pending) -> int:
    return item.order


class RequestQueue:
    """Three queues: begun requests, the longest first; those on trial; the fresh ones by problem."""

    def __init__(self) -> None:
        self._problems: dict[str, Problem] = {}
        self._begun: list[tuple[int, int, Pending]] = []  # a heap
        self._trial: list[Pending] = []
        # Problems with fresh requests, in order, by the worker that has the prompt.
        self._fresh: dict[str | None, list[Problem]] = {}
        self._fresh_requests = 0

    def __len__(self) -> int:
        return len(self._begun) + len(self._trial) + self._fresh_requests

    @property
    def problems(self) -> int:
        """Problems of which there have been requests."""
        return len(self._problems)

    def problem(self, id: str) -> Problem:
        """The one of this id, made where it is new."""
        return self._problems.setdefault(id, Problem(len(self._problems)))

    def add(self, pending: Pending, on_trial: bool) -> None:
        pending.worker = None
        if on_trial:
            self._trial.append(pending)
        elif length := len(pending.chain.tokens):
            heapq.heappush(self._begun, (-length, pending.order, pending))
        else:
            insort(pending.problem.fresh, pending, key=_order)
            self._fresh_requests += 1
            if len(pending.problem.fresh) == 1:
                self._list(pending.problem)

    def has_trial(self) -> bool:
        return bool(self._trial)

    def has_other(self) -> bool:
        """Whether there is anything that need not be alone."""
        return bool(self._begun or self._fresh)

    def take_trial(self) -> Pending | None:
        """The next request that must be alone in a worker."""
        if not self._trial:
            return None
        place = next((n for n, p in enumerate(self._trial) if not p.problem.suspect), 0)
        return self._trial.pop(place)

    def take_unlike(self) -> Pending | None:
        """A request of a problem of which none was given up, as far from the next ones as there is: what is
        wrong with a problem may be wrong with its neighbours."""
        for place in reversed(range(len(self._trial))):
            if not self._trial[place].problem.suspect:
                return self._trial.pop(place)
        problems = [problem for problems in self._fresh.values() for problem in problems]
        last = max((problem for problem in problems if not problem.suspect), key=_order, default=None)
        return self._take_fresh(last) if last is not None else None

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
        problem = self._longest() if longest_first else self._nearest(worker)
        if problem is None:
            return None
        self._claim(problem, worker)
        return self._take_fresh(problem)

    def _take_fresh(self, problem: Problem) -> Pending:
        pending = problem.fresh.pop(0)
        self._fresh_requests -= 1
        if not problem.fresh:
            self._unlist(problem)
        return pending

    def clear(self) -> list[Pending]:
        """Takes everything out."""
        fresh = [pending for problem in self._problems.values() for pending in problem.fresh]
        everything = [*self._trial, *(pending for *_, pending in self._begun), *fresh]
        for problem in self._problems.values():
            problem.fresh.clear()
        self._trial.clear()
        self._begun.clear()
        self._fresh.clear()
        self._fresh_requests = 0
        return everything

    def forget(self, worker: str) -> None:
        """A worker is gone, and the prompt pages that it had."""
        for problem in self._problems.values():
            if problem.worker == worker:
                self._move(problem, None)

    def _nearest(self, worker: str) -> Problem | None:
        for home in (worker, None):
            for problem in self._fresh.get(home, ()):
                if not problem.suspect:
                    return problem
        problems = (problem for problems in self._fresh.values() for problem in problems)
        return min(problems, key=lambda problem: (problem.suspect, problem.order), default=None)

    def _longest(self) -> Problem | None:
        problems = (problem for problems in self._fresh.values() for problem in problems)
        return max(
            problems,
            key=lambda problem: (not problem.suspect, problem.longest, -problem.order),
            default=None,
        )

    def _claim(self, problem: Problem, worker: str) -> None:
        if problem.worker is None:
            self._move(problem, worker)

    def _move(self, problem: Problem, worker: str | None) -> None:
        if problem.fresh:
            self._unlist(problem)
        problem.worker = worker
        if problem.fresh:
            self._list(problem)

    def _list(self, problem: Problem) -> None:
        insort(self._fresh.setdefault(problem.worker, []), problem, key=_order)

    def _unlist(self, problem: Problem) -> None:
        problems = self._fresh[problem.worker]
        del problems[bisect_left(problems, problem.order, key=_order)]
        if not problems:
            del self._fresh[problem.worker]
