"""The queue's heaps against a look at everything, and that what they do depends little on what waits."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fake_engine import make_request

from seer_ray.cluster.assignments import Assignments
from seer_ray.cluster.queue import Pending, Problem, RequestQueue, Unread
from seer_ray.engine.request import Delta, Request
from seer_ray.results.chain import Chain


def next_of(problems: list[Problem], worker: str, longest_first: bool) -> Problem | None:
    """By a look at all problems that have fresh requests."""
    if longest_first and problems:
        return min(problems, key=lambda problem: (-problem.longest, problem.order))
    for home in (worker, None) if not longest_first else ():
        if mine := [problem for problem in problems if problem.worker == home]:
            return mine[0]
    return min(problems, key=lambda problem: problem.order, default=None)


@pytest.mark.parametrize("seed", range(20))
def test_heaps_give_what_a_look_at_everything_gives(seed: int) -> None:
    chance, queue = random.Random(seed), RequestQueue()
    taken: list[Pending] = []
    order, known = 0, dict[str, Problem]()
    workers = ["a", "b", "c"]
    for step in range(400):
        what = chance.random()
        if what < 0.3:
            problem = queue.problem(f"p{chance.randrange(30)}")
            known[problem.id] = problem
            problem.unfinished += 1
            request = make_request(problem.id, order)
            queue.add(Pending(request, order, problem, Chain()))
            order += 1
        elif what < 0.4 and taken:
            queue.add(taken.pop(chance.randrange(len(taken))))
        elif what < 0.5 and known:
            queue.grew(chance.choice(list(known.values())), chance.randrange(50))
        elif what < 0.51 and known:
            queue.convict(chance.choice(list(known.values())))
        elif what < 0.58:
            place = chance.randrange(3)
            gone, workers[place] = workers[place], f"w{step}"
            queue.forget(gone)
            for problem in known.values():
                problem.worker = None if problem.worker == gone else problem.worker
        else:
            worker, last = chance.choice(workers), seed % 2 == 1 and step > 200
            waiting = sorted((p for p in known.values() if p.fresh), key=lambda problem: problem.order)
            wanted = next_of(waiting, worker, last)
            first = wanted.fresh[0] if wanted else None
            pending = queue.take(worker, longest_first=last)
            assert pending is first
            if pending is not None:
                taken.append(pending)


def calls(action: Callable[[], Any]) -> int:
    """Calls of functions, and steps of generators, that it takes."""
    count = 0

    def see(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def cost(problems: int, tail: bool) -> int:
    """Of a dispatch of one request, and of a report of one token."""
    requests = [make_request(f"p{p}", s) for p in range(problems) for s in range(4)]
    assignments = Assignments(requests, max_attempts=3)
    if tail:
        assignments.dispatch("big", 2 * problems + 10, 1)
    worker = "big" if tail else "a"
    held: list[Request] = assignments.dispatch("a", 1, 1)
    held = held or assignments.dispatch(worker, 1, 1)
    token = Delta(assignments.held(worker)[0], [1])
    assignments.report(worker, [token])
    assignments.dispatch(worker, 1, 1)  # what is done once is done
    return calls(lambda: (assignments.dispatch(worker, 1, 1), assignments.report(worker, [token])))


@pytest.mark.parametrize("tail", [False, True])
def test_a_dispatch_costs_the_same_whatever_waits(tail: bool) -> None:
    assert cost(5000, tail) < 2 * cost(50, tail)


def test_requests_are_read_when_they_are_near() -> None:
    """And those that no worker is to have are passed by."""
    read = 0

    def stream() -> Any:
        nonlocal read
        for n in range(5000):
            read += 1
            yield make_request(f"p{n}") if n % 2 else None

    assignments = Assignments([], max_attempts=3)
    assignments.read(Unread(stream(), 5000))
    assert assignments.dispatch("a", 1, 1)[0].id == "p1/0"
    assert read < 1500
    assert assignments.unfinished == 5000 - read // 2
    done = 1
    while assignments.wants("a", 1):
        done += len(assignments.dispatch("a", 100, 1))
    assert (done, read, assignments.queued) == (2500, 5000, 0)
