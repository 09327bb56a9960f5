"""The queue of a coordinator: what goes to which worker next. Its order is described in ``coordinator``."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from seer_ray.engine.request import Counters, Progress, Request

_BEGUN, _TRIAL, _UNCLAIMED = "begun", "trial", "unclaimed"


@dataclass
class Problem:
    """What the samples of one problem have in common."""

    worker: str | None = None
    """Where its prompt pages are."""
    longest: int = 0
    """Tokens of its longest sample so far."""
    waiting: dict[str, Chain] = field(default_factory=dict)
    """Its samples in the queue that have not been begun, by request id."""


@dataclass
class Chain:
    """A request that is not done, and how far it is."""

    request: Request
    order: int
    problem: Problem
    attempts: int = 0
    """Workers that had it."""
    strikes: int = 0
    """Workers that died with it since its last new token."""
    worker: str | None = None
    tokens: list[int] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    told: int = 0
    """Tokens that ``Coordinator.changes`` has told of."""
    trace: list[bytes] = field(default_factory=list)
    """Of the tokens that it has not told of; empty if the request is not recorded."""
    place: str | None = None
    """The part of the queue that it is in."""

    def progress(self) -> Progress:
        return Progress(tuple(self.tokens), self.counters)


class WaitingChains:
    """Chains in heaps: begun, on trial, of no worker yet, and of each worker that has the problem's prompt.

    A chain may have stale entries in heaps that it has left; ``place`` says which one holds.
    """

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._heaps: dict[str, list[tuple[int, int, int, Chain]]] = {}
        self._pushes = 0  # breaks ties between entries of one chain

    def __len__(self) -> int:
        return len(self._chains)

    def add(self, chain: Chain, on_trial: bool) -> None:
        """Puts a chain in."""
        chain.worker = None
        self._chains[chain.request.id] = chain
        if on_trial:
            self._put(chain, _TRIAL)
        elif chain.tokens:
            self._put(chain, _BEGUN)
        else:
            chain.problem.waiting[chain.request.id] = chain
            self._put(chain, self._home(chain.problem))

    def has_trial(self) -> bool:
        return self._first(_TRIAL) is not None

    def has_other(self) -> bool:
        """Whether there is anything that need not be alone."""
        return any(self._first(place) for place in list(self._heaps) if place != _TRIAL)

    def take_trial(self) -> Chain | None:
        """The next chain that must be alone in a worker."""
        return self._take(self._first(_TRIAL))

    def take(self, worker: str, longest_first: bool) -> Chain | None:
        """The next chain for a worker that may have mates."""
        chain = self._first(_BEGUN)
        if chain is None and longest_first:
            fresh = (chain for chain in self._chains.values() if chain.place not in (_BEGUN, _TRIAL))
            chain = min(fresh, key=lambda c: (-c.problem.longest, c.order), default=None)
        chain = chain or self._first(f"of {worker}") or self._first(_UNCLAIMED)
        if chain is None:
            others = (self._first(place) for place in list(self._heaps) if place != _TRIAL)
            chain = min((c for c in others if c), key=lambda c: c.order, default=None)
        if chain is not None:
            self._claim(chain.problem, worker)
        return self._take(chain)

    def clear(self) -> list[Chain]:
        """Takes all chains out."""
        chains = list(self._chains.values())
        for chain in chains:
            self._take(chain)
        self._heaps.clear()
        return chains

    def forget(self, worker: str, problems: dict[str, Problem]) -> None:
        """A worker is gone, and the prompt pages that it had."""
        for problem in problems.values():
            if problem.worker == worker:
                problem.worker = None
                for chain in problem.waiting.values():
                    self._put(chain, _UNCLAIMED)
        self._heaps.pop(f"of {worker}", None)

    def _home(self, problem: Problem) -> str:
        return _UNCLAIMED if problem.worker is None else f"of {problem.worker}"

    def _claim(self, problem: Problem, worker: str) -> None:
        if problem.worker is None:
            problem.worker = worker
            for chain in problem.waiting.values():
                self._put(chain, self._home(problem))

    def _put(self, chain: Chain, place: str) -> None:
        chain.place = place
        first = -len(chain.tokens) if place == _BEGUN else 0
        self._pushes += 1
        heapq.heappush(self._heaps.setdefault(place, []), (first, chain.order, self._pushes, chain))

    def _first(self, place: str) -> Chain | None:
        heap = self._heaps.get(place, [])
        while heap and heap[0][-1].place != place:
            heapq.heappop(heap)
        return heap[0][-1] if heap else None

    def _take(self, chain: Chain | None) -> Chain | None:
        if chain is not None:
            del self._chains[chain.request.id]
            chain.problem.waiting.pop(chain.request.id, None)
            chain.place = None
        return chain
