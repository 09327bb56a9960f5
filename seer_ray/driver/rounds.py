"""The rounds of a run: which of its requests are left, made when they are near."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from seer_ray.driver.requests import request_id
from seer_ray.engine.request import Request
from seer_ray.results.chain import Chain
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.table import ProblemTable, Survey

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
        places: Of this round's.
        samples: Of a problem that has no number of its own.
        done: Rows that are there.
        begun: Requests of this round that were: (place, sample).
        count: Requests that are left.
        make: Makes them.
        soon: Told which problems are next.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        places: range,
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
        pairs = zip(self._places, _in_order(self._problems, self._places), strict=True)
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
    """All of them; of a run that was begun the problems are looked at once.

    Args:
        problems: All of the run, in order.
        samples: Of a problem that has no number of its own.
        size: Problems of a round.
        done: Rows that are there.
        chains: What was begun.
        make: Makes the requests.
        soon: Told which problems are next.
    """
    found, stream = [], iter(problems)
    fresh = not done and not chains and Survey.of(problems).own_samples is None
    for start in range(0, len(problems), size):
        places = range(start, min(start + size, len(problems)))
        if fresh:
            found.append(Round(problems, places, samples, done, [], len(places) * samples, make, soon))
            continue
        count, begun = 0, list[tuple[int, int, int]]()
        for place, problem in zip(places, islice(stream, len(places)), strict=True):
            for sample in range(problem.samples(samples)):
                if (problem.id, sample) not in done:
                    count += 1
                    if chains and (chain := chains.get(request_id(problem.id, sample))):
                        begun.append((-len(chain.tokens), place, sample))
        order = [(place, sample) for _, place, sample in sorted(begun)]
        found.append(Round(problems, places, samples, done, order, count, make, soon))
    return found


def _in_order(problems: Sequence[Problem], places: range) -> Iterable[Problem]:
    """A table reads neighbours at once."""
    if isinstance(problems, ProblemTable):
        return problems.read(places)
    return (problems[place] for place in places)
