"""Runs that share workers, without Ray: workers are engines in this process, and die when told to."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from fake_engine import FakeEngine, expected_tokens, make_request

from seer_ray.cluster import dispatch
from seer_ray.cluster.breaker import CircuitBreaker
from seer_ray.cluster.dispatch import Dispatcher
from seer_ray.cluster.engine_thread import Built, DecodeOptions, WorkReport
from seer_ray.cluster.events import Event, Lost, Ready, Reported
from seer_ray.cluster.run_queue import RunQueue
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.engine.request import Completion, Delta, Request

NAMES = ("dense", "quest", "window")


class Local:
    """Stands for a pool: every call of ``work`` is answered by the next poll, after some steps."""

    def __init__(self, workers: int, rows: int = 2) -> None:
        self.rows, self.size, self.ready, self.wanted = rows, workers, 0, workers
        self.engines: dict[str, FakeEngine] = {}
        self.options: dict[str, DecodeOptions | None] = {}
        self.calls: list[tuple[str, list[Request], DecodeOptions | None]] = []
        self.back: dict[str, Sequence[str]] = {}
        self.gone_soon: list[str] = []
        self.released: list[str] = []
        self.history: list[tuple[str, str]] = []
        """(worker, request) as they are handed out, the request with its run's selector."""
        self.born = 0
        self.report_interval = 1.0
        self.doomed: list[str] = []

    @property
    def alive(self) -> int:
        return len(self.engines)

    @property
    def sharing(self) -> int:
        return len(self.engines)

    def leaving(self) -> list[str]:
        return self.gone_soon

    def release(self, worker: str) -> None:
        assert not self.engines[worker].busy
        del self.engines[worker]
        self.gone_soon = [name for name in self.gone_soon if name != worker]
        self.released.append(worker)

    def start(self, wanted: int) -> None:
        self.wanted = min(wanted, self.size)

    def poll(self, seconds: float) -> list[Event]:
        events: list[Event] = []
        while len(self.engines) < self.wanted:
            name = f"w{self.born}"
            self.born += 1
            self.engines[name] = FakeEngine(self.rows)
            events.append(Ready(name, Built(self.rows, "built")))
        self.ready = len(self.engines)
        calls, self.calls = self.calls, []
        for name, new, options in calls:
            if name in self.doomed:
                self.doomed.remove(name)
                del self.engines[name]
                events.append(Lost(name, "killed"))
            else:
                events.append(Reported(name, self._work(name, new, options)))
        return events

    def work(
        self,
        worker: str,
        new: Sequence[Request],
        seconds: float,
        hungry: bool,
        options: DecodeOptions | None,
        back: Sequence[str] = (),
    ) -> None:
        assert not any(name == worker for name, _, _ in self.calls)
        assert options is not None
        self.history += [(worker, f"{options.selector.name}:{request.id}") for request in new]
        self.calls.append((worker, list(new), options))
        self.back[worker] = back

    def _work(self, name: str, new: list[Request], options: DecodeOptions | None) -> WorkReport:
        engine, refused = self.engines[name], None
        if options is not None and options != self.options.get(name):
            try:
                engine.configure(
                    options.engine, options.selector, options.plan
                )  # fails if it holds other requests
                self.options[name] = options
            except ConfigError as error:
                refused, new = str(error), []
        for id in self.back.pop(name, ()):
            engine.abort(id)
        for request in new:
            engine.submit(request)
        deltas: list[Delta] = []
        for _ in range(3):
            deltas += engine.step() if engine.busy else []
        state = engine.room(), engine.busy, engine.stats(), engine.plan_id, engine.waiting()
        return WorkReport(deltas, *state, refused)


def queue(name: str, problems: int, samples: int = 2, each: int = 1, length: int = 4) -> RunQueue:
    """Rounds of ``each`` problems."""
    requests = [make_request(f"p{p}", s, length) for p in range(problems) for s in range(samples)]
    size = each * samples
    rounds = [requests[first : first + size] for first in range(0, len(requests), size)]
    return RunQueue(
        name, rounds, 3, None, DecodeOptions(EngineConfig(), SelectorConfig(name=name), PlanConfig())
    )


def run(dispatcher: Dispatcher, chance: random.Random | None = None) -> list[tuple[str, Any]]:
    done: list[tuple[str, Any]] = []
    for _ in range(5000):
        if not dispatcher.unfinished:
            return done
        done += [(queue.name, outcome.completion) for queue, outcome in dispatcher.poll(0.0)]
        pool: Any = dispatcher.pool
        if chance and chance.random() < 0.05 and pool.calls:
            pool.doomed.append(chance.choice(pool.calls)[0])
    raise AssertionError("does not end")


def dispatcher_of(queues: Sequence[RunQueue], workers: int = 1, rows: int = 2) -> tuple[Dispatcher, Local]:
    pool = Local(workers, rows)
    return Dispatcher(queues, pool, lambda _: None), pool  # type: ignore[arg-type]


def test_runs_take_turns_by_rounds() -> None:
    dispatcher, pool = dispatcher_of([queue(name, problems=3) for name in NAMES])
    run(dispatcher)
    order = [text.partition("/")[0] for _, text in pool.history]
    there, back = ["dense", "quest", "window"], ["window", "quest", "dense"]
    wanted = [f"{name}:p{p}" for p, names in enumerate((there, back, there)) for name in names]
    assert order == [text for text in wanted for _ in range(2)]


def test_what_was_done_is_counted_by_turns() -> None:
    queues = [queue(name, problems=4, length=6) for name in NAMES]
    dispatcher, _ = dispatcher_of(queues)
    run(dispatcher)
    for one in queues:
        assert [tokens for tokens, _ in one.turns] == [2 * 6] * 4
        assert math.fsum(seconds for _, seconds in one.turns) == pytest.approx(one.seconds)


def test_a_half_finished_sweep_compares_like_with_like() -> None:
    queues = [queue(name, problems=12, each=2) for name in NAMES]
    dispatcher, _ = dispatcher_of(queues, workers=2)
    done = dict.fromkeys(NAMES, 0)
    while dispatcher.unfinished:
        for found, _ in dispatcher.poll(0.0):
            done[found.name] += 1
        # Two rounds of two problems with two samples: the one that ends, and the one that begins beside it.
        assert max(done.values()) - min(done.values()) <= 2 * 4
    assert set(done.values()) == {24}


@pytest.mark.parametrize("seed", range(8))
def test_every_request_once_whoever_dies(seed: int) -> None:
    chance = random.Random(seed)
    queues = [queue(name, chance.randint(1, 9), each=chance.randint(1, 3)) for name in NAMES]
    total = sum(found.unfinished for found in queues)
    dispatcher, _ = dispatcher_of(queues, workers=chance.randint(1, 4), rows=chance.randint(1, 4))
    done = run(dispatcher, chance)
    assert len(done) == total
    assert set(Counter((name, c.request.id) for name, c in done).values()) == {1}
    for _, completion in done:
        if completion.finish_reason != "error":
            assert list(completion.tokens) == expected_tokens(completion.request)


def test_what_engines_did_goes_to_the_run_that_they_did_it_for() -> None:
    queues = [queue(name, problems=2 * (n + 1)) for n, name in enumerate(NAMES)]
    dispatcher, _ = dispatcher_of(queues, workers=2)
    run(dispatcher)
    assert [found.stats["new_tokens"] for found in queues] == [16, 32, 48]
    assert [found.new_tokens for found in queues] == [16, 32, 48]
    assert [found.plan for found in queues] == ["fake-dense2048", "fake-quest2048", "fake-window2048"]


def test_options_that_are_refused_end_their_run_alone() -> None:
    bad = queue("seer", problems=4)
    dispatcher, _ = dispatcher_of([queue("dense", 4), bad, queue("quest", 4)], workers=2)
    done = run(dispatcher)
    assert bad.failure == "model.gates: none given"
    assert Counter(name for name, _ in done) == {"dense": 8, "quest": 8}


def test_a_run_that_is_stopped_finishes_what_is_begun() -> None:
    queues = [queue("dense", 4), queue("quest", 4)]
    dispatcher, _ = dispatcher_of(queues)
    while not queues[1].running:
        dispatcher.poll(0.0)
    begun = queues[1].running
    queues[1].stop()
    done = Counter(name for name, _ in run(dispatcher))
    assert done["quest"] == begun < 8


def test_the_last_run_need_not_wait_for_its_own_tail() -> None:
    """With nobody else left, the next rounds begin while the longest chain of this one still runs."""
    found = queue("quest", problems=6, samples=1, length=40)
    dispatcher, pool = dispatcher_of([found], rows=4)
    for _ in range(3):
        dispatcher.poll(0.0)
    assert len(pool.history) == 4


class Deadly(Local):
    """Workers that die as soon as they hold a request of certain problems, whoever else is in them."""

    def __init__(self, bad: Any, workers: int = 1, rows: int = 4) -> None:
        super().__init__(workers, rows)
        self.bad, self.deaths = bad, 0

    def poll(self, seconds: float) -> list[Event]:
        for name, new, _ in self.calls:
            if name not in self.doomed and any(self.bad(request.problem) for request in new):
                self.doomed.append(name)
                self.deaths += 1
        return super().poll(seconds)


@pytest.mark.parametrize(("problems", "samples"), [(12, 1), (3, 4), (3, 2), (2, 1), (100, 1)])
@pytest.mark.parametrize("rows", [1, 4, 16])
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_always_die_end_the_run_and_make_no_row(
    problems: int, samples: int, rows: int, workers: int
) -> None:
    found, pool = (
        queue("dense", problems, samples, each=problems),
        Deadly(lambda problem: True, workers, rows),
    )
    done = run(Dispatcher([found], pool, lambda _: None))  # type: ignore[arg-type]
    assert done == []
    assert found.failure == (
        "3 workers in a row died with requests before another token came (cluster.max_deaths=3): killed"
    )
    assert pool.deaths <= workers + 2


@pytest.mark.parametrize("bad", [("p0",), ("p3",), ("p11",), ("p0", "p6"), ("p0", "p1")], ids=" ".join)
@pytest.mark.parametrize("samples", [1, 2, 8])
@pytest.mark.parametrize("rows", [1, 2, 4, 16])
@pytest.mark.parametrize("workers", [1, 2])
def test_poisonous_problems_among_many_are_rows_of_their_own(
    bad: tuple[str, ...], samples: int, rows: int, workers: int
) -> None:
    found, pool = queue("dense", 12, samples, each=12), Deadly(lambda problem: problem in bad, workers, rows)
    done = run(Dispatcher([found], pool, lambda _: None))  # type: ignore[arg-type]
    assert found.failure is None
    errors = Counter(c.request.problem for _, c in done if c.finish_reason == "error")
    assert errors == dict.fromkeys(bad, samples) and len(done) == 12 * samples


@pytest.mark.parametrize("rows", [4, 16])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("place", [0, 50, 99])
def test_one_poisonous_request_among_a_hundred_costs_four_workers_at_most(
    rows: int, workers: int, place: int
) -> None:
    found = queue("dense", 100, 1, each=100)
    pool = Deadly(lambda problem: problem == f"p{place}", workers, rows)
    done = run(Dispatcher([found], pool, lambda _: None))  # type: ignore[arg-type]
    errors = [c.request.problem for _, c in done if c.finish_reason == "error"]
    assert errors == [f"p{place}"] and len(done) == 100 and found.failure is None
    assert pool.deaths <= 4


@pytest.mark.parametrize("workers", [1, 4, 32])
@pytest.mark.parametrize("seed", range(6))
def test_many_poisonous_problems_do_not_open_the_breaker(workers: int, seed: int) -> None:
    """Each worker that begins with some of them dies before a token has come from anywhere."""
    bad = {f"p{p}" for p in random.Random(seed).sample(range(200), 10)}
    found = queue("dense", 200, 1, each=200)
    pool = Deadly(lambda problem: problem in bad, workers, 8)
    done = run(Dispatcher([found], pool, lambda _: None))  # type: ignore[arg-type]
    assert found.failure is None
    assert {c.request.problem for _, c in done if c.finish_reason == "error"} == bad and len(done) == 200


def test_the_last_requests_of_a_run_that_worked_before_are_rows() -> None:
    """With nothing beside them that would bring a token."""
    found, pool = queue("dense", 2, 1, each=2), Deadly(lambda problem: True)
    found._breaker = CircuitBreaker(3, worked=True)
    done = run(Dispatcher([found], pool, lambda _: None))  # type: ignore[arg-type]
    assert [c.finish_reason for _, c in done] == ["error"] * 2 and found.failure is None


def test_workers_that_die_in_the_midst_of_a_run_end_it() -> None:
    found, pool = queue("dense", 60, 1, each=60), Deadly(lambda problem: False)
    dispatcher = Dispatcher([found], pool, lambda _: None)  # type: ignore[arg-type]
    while found.unfinished > 30:
        dispatcher.poll(0.0)
    pool.bad = lambda problem: True
    done = run(dispatcher)
    assert "workers in a row died" in str(found.failure) and pool.deaths <= 5
    assert all(c.finish_reason != "error" for _, c in done)


def test_one_poisonous_request_that_is_left_is_a_row() -> None:
    found, pool = queue("dense", 1, 1), Deadly(lambda problem: True)
    ((_, completion),) = run(Dispatcher([found], pool, lambda _: None))  # type: ignore[arg-type]
    assert "its worker died 3 times in a row" in str(completion.error) and found.failure is None


def test_a_run_whose_workers_die_costs_the_others_nothing() -> None:
    queues = [queue("dense", 4), queue("quest", 4)]
    pool = Deadly(lambda problem: False)
    pool.poll(0.0)
    held = pool.work

    def work(
        worker: str, new: Sequence[Request], seconds: float, hungry: bool, options: Any, back: Any = ()
    ) -> None:
        held(worker, new, seconds, hungry, options, back)
        if options.selector.name == "quest":
            pool.doomed.append(worker)

    pool.work = work  # type: ignore[method-assign]
    pool.engines.clear()
    done = run(Dispatcher(queues, pool, lambda _: None))  # type: ignore[arg-type]
    assert Counter(name for name, _ in done) == {"dense": 8}
    assert "workers in a row" in str(queues[1].failure)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a moment does not."""
    monkeypatch.setattr(dispatch, "PAUSE", 0.0)


@pytest.mark.usefixtures("at_once")
def test_chains_move_from_a_crowded_worker_to_those_that_come_later() -> None:
    found = queue("dense", 8, 1, each=8, length=60)
    dispatcher, pool = dispatcher_of([found], workers=1, rows=8)
    for _ in range(3):
        dispatcher.poll(0.0)
    assert found.assignments.load("w0") == 8
    pool.size = 4
    for _ in range(6):
        dispatcher.poll(0.0)
    assert [found.assignments.load(f"w{n}") for n in range(4)] == [2, 2, 2, 2]
    done = run(dispatcher)
    assert all(list(c.tokens) == expected_tokens(c.request) for _, c in done) and len(done) == 8
    assert sum(engine.produced for engine in pool.engines.values()) <= 8 * 60, "no token was made twice"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("seed", range(4))
def test_chains_that_move_and_workers_that_die_lose_and_double_nothing(seed: int) -> None:
    chance = random.Random(seed)
    requests = [make_request(f"p{p}", 0, chance.randint(1, 90)) for p in range(30)]
    options = DecodeOptions(EngineConfig(), SelectorConfig(name="dense"), PlanConfig())
    found = RunQueue("dense", [requests], 3, None, options)
    dispatcher, _ = dispatcher_of([found], workers=5, rows=8)
    done = run(dispatcher, chance)
    assert sorted(c.request.id for _, c in done) == sorted(request.id for request in requests)
    assert all(list(c.tokens) == expected_tokens(c.request) for _, c in done)


@pytest.mark.usefixtures("at_once")
def test_idle_workers_are_let_go_in_the_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "RELEASE", -1.0)
    requests = [make_request(f"p{p}", 0, length) for p, length in enumerate((3, 3, 40, 40))]
    options = DecodeOptions(EngineConfig(), SelectorConfig(name="dense"), PlanConfig())
    dispatcher, pool = dispatcher_of([RunQueue("dense", [requests], 3, None, options)], workers=4, rows=1)
    for _ in range(6):
        dispatcher.poll(0.0)
    assert len(pool.released) == 2 and pool.alive == 2
    assert dispatcher.unfinished == 2 == len(run(dispatcher))
    assert pool.born == 4, "who is let go is not started again"


def test_a_node_that_leaves_keeps_no_chain_and_no_worker() -> None:
    found = queue("dense", 6, 1, each=6, length=60)
    dispatcher, pool = dispatcher_of([found], workers=2, rows=8)
    for _ in range(3):
        dispatcher.poll(0.0)
    assert found.assignments.load("w0") == 3
    pool.gone_soon, pool.size = ["w0"], 1
    for _ in range(5):
        dispatcher.poll(0.0)
    assert pool.released == ["w0"] and found.assignments.load("w1") == 6
    done = run(dispatcher)
    assert all(list(c.tokens) == expected_tokens(c.request) for _, c in done) and len(done) == 6
    assert pool.engines["w1"].produced + 3 * 6 <= 6 * 60, "chains came with their tokens"


def test_what_dead_workers_had_in_use_is_in_use_no_more() -> None:
    found = queue("dense", 4, 1, each=4, length=30)
    dispatcher, pool = dispatcher_of([found], workers=2, rows=2)
    for _ in range(3):
        dispatcher.poll(0.0)
    for engine in pool.engines.values():
        engine.pages = 100.0
    dispatcher.poll(0.0)
    before = dispatcher.stats()
    assert before["pages"] == 200.0
    pool.doomed.append("w0")
    pool.size = 1
    while pool.doomed:
        dispatcher.poll(0.0)
    after = dispatcher.stats()
    assert after["pages"] == 100.0 and after["new_tokens"] >= before["new_tokens"] > 0


def test_a_worker_that_is_tried_and_leaves_does_not_stop_the_others() -> None:
    found = queue("dense", 8, 1, each=8)
    found.release()
    for worker in ("a", "b"):
        assert found.dispatch(worker, 4, 2)
    found.lost("a", "killed", 2)
    assert found.half_open and found.dispatch("c", 4, 2) and not found.dispatch("d", 4, 2)
    back = [
        Delta(id, completion=Completion(make_request("x"), [], "", "abort"))
        for id in found.assignments.held("c")
    ]
    assert found.report("c", back, 1.0) == [] and found.half_open
    assert found.dispatch("d", 4, 2)
