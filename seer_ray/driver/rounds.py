"""The rounds of a run: which of its requests are left, made when they are near."""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from seer_ray.engine.request import Request
from seer_ray.results.chain import Chain
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.table import ProblemTable

Make = Callable[[int, Problem, int, int], Request | None]
"""(place of the problem, problem, sample, samples of the problem that are left) -> the request; None: no
worker is to have it."""
Soon = Callable[[Sequence[Problem]], None]
"""Is told of problems before requests of them are made."""
STEP = 32
"""Problems that it is told of at a time."""
AHEAD = 8
"""Such steps that it is ahead."""


class Round(Collection[Request | None]):
    """What is left of some problems: first what was begun, the longest chain first, then the others in order.

    Args:
        problems: All of the run.
        places: Of those of this round of which something is left.
        samples: Of a problem that has no number of its own.
        done: Rows that are there.
        begun: Requests of this round that were: (place, sample).
        count: Requests that are left.
        make: Makes them.
        soon: Told which problems are next.
    """

    def __init__(
        self,
        problems: ProblemTable,
        places: Sequence[int],
        samples: int,
        done: Collection[tuple[str, int]],
        begun: Sequence[tuple[int, int]],
        count: int,
        make: Make,
        soon: Soon,
    ) -> None:
        self._problems, self._places, self._samples = problems, places, samples
        self._done, self._begun, self._count = done, begun, count
        self._make, self._soon = make, soon

    def __len__(self) -> int:
        return self._count

    def __contains__(self, request: object) -> bool:
        return any(request == other for other in self)

    def __iter__(self) -> Iterator[Request | None]:
        for place, sample in self._begun:
            problem = self._problems[place]
            yield self._make(place, problem, sample, len(self._left(problem)))
        begun = set(self._begun)
        for place, problem, left in self._announced():
            for sample in left:
                if (place, sample) not in begun:
                    yield self._make(place, problem, sample, len(left))

    def _announced(self) -> Iterator[tuple[int, Problem, list[int]]]:
        """Problems that are not done, and their samples that are left."""
        pairs = zip(self._places, self._problems.read(self._places), strict=True)
        some = ((place, problem, left) for place, problem in pairs if (left := self._left(problem)))
        near: deque[list[tuple[int, Problem, list[int]]]] = deque()
        while step := list(islice(some, STEP)):
            self._soon([problem for _, problem, _ in step])
            near.append(step)
            if len(near) > AHEAD:
                yield from near.popleft()
        for step in near:
            yield from step

    def _left(self, problem: Problem) -> list[int]:
        samples = range(problem.samples(self._samples))
        return [sample for sample in samples if (problem.id, sample) not in self._done]


def rounds_of(
    problems: Sequence[Problem],
    samples: int,
    size: int,
    done: Collection[tuple[str, int]],
    chains: Mapping[str, Chain],
    make: Make,
    soon: Soon = lambda problems: None,
) -> list[Round]:
    """All of them. Problems are read when requests are; all at once only if some have own numbers of samples.

    Args:
        problems: All of the run, in order.
        samples: Of a problem that has no number of its own.
        size: Problems of a round.
        done: Rows that are there.
        chains: What was begun.
        make: Makes the requests.
        soon: Told which problems are next.
    """
    table = ProblemTable.of(problems)
    wanted = _wanted(table, samples)
    known = {problem for problem, _ in done} | {id.rpartition("/")[0] for id in chains}
    places = table.places(known) if known else {}
    left = wanted - _done(done, places, wanted)
    begun: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for id, chain in chains.items():
        problem, _, sample = id.rpartition("/")
        place = places.get(problem)
        if place is not None and int(sample) < wanted[place] and (problem, int(sample)) not in done:
            begun[place // size].append((-len(chain.tokens), place, int(sample)))
    found = []
    for number, start in enumerate(range(0, len(table), size)):
        some = left[start : start + size]
        near = range(start, start + len(some))
        here = near if some.all() else array("Q", (np.flatnonzero(some) + start).tolist())
        order = [(place, sample) for _, place, sample in sorted(begun[number])]
        found.append(Round(table, here, samples, done, order, int(some.sum()), make, soon))
    return found


def _wanted(table: ProblemTable, samples: int) -> NDArray[np.int64]:
    """Samples of each problem."""
    if table.survey.own_samples is None:
        return np.full(len(table), samples)
    return np.fromiter((problem.samples(samples) for problem in table), np.int64, len(table))


def _done(
    done: Collection[tuple[str, int]], places: Mapping[str, int], wanted: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Samples of each problem that are there."""
    rows = np.fromiter((places.get(problem, -1) for problem, _ in done), np.int64, len(done))
    numbers = np.fromiter((sample for _, sample in done), np.int64, len(done))
    rows = rows[(rows >= 0) & (numbers < wanted[rows])]
    return np.bincount(rows, minlength=len(wanted))
