from __future__ import annotations

import threading
from array import array

import pytest
from engines import around_pages, make_engine, outcomes, run
from fake_engine import FakeEngine, expected_tokens, make_request

from seer_ray.cluster.assignments import Assignments, Outcome
from seer_ray.cluster.engine_thread import Built, EngineLoop, merge
from seer_ray.engine import Engine
from seer_ray.engine.request import Completion, Counters, Delta, Request

LONG = 3600.0


class Gated(FakeEngine):
    """Steps only as often as it is let."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.permits = threading.Semaphore(0)

    def step(self, tell: bool = True) -> list[Delta]:
        self.permits.acquire()
        return super().step(tell)

    def let(self, steps: int) -> None:
        for _ in range(steps):
            self.permits.release()


def run_to_end(loop: EngineLoop, requests: list[Request]) -> dict[str, Completion]:
    completions: dict[str, Completion] = {}
    report = loop.exchange(requests, LONG, hungry=True)
    while True:
        for delta in report.deltas:
            if delta.completion is not None:
                completions[delta.request_id] = delta.completion
        if not report.busy:
            return completions
        report = loop.exchange([], LONG, hungry=True)


def test_all_requests_of_an_exchange_come_back_whole() -> None:
    loop = EngineLoop(lambda: FakeEngine(rows=2))
    assert loop.wait_until_built() == Built(2, "fake")
    requests = [make_request(f"p{n}", length=n + 1) for n in range(5)]
    completions = run_to_end(loop, requests)
    assert {id: list(c.tokens) for id, c in completions.items()} == {
        r.id: expected_tokens(r) for r in requests
    }


def test_without_work_an_exchange_comes_back_at_once() -> None:
    loop = EngineLoop(lambda: FakeEngine())
    report = loop.exchange([], LONG, hungry=True)
    assert (report.deltas, report.busy) == ([], False)


def test_a_hungry_caller_hears_of_room_as_soon_as_there_is_some() -> None:
    engine = Gated(rows=2)
    loop = EngineLoop(lambda: engine)
    engine.let(3)  # then it stands still: the exchange must come back at the third step
    report = loop.exchange(
        [make_request("short", length=3), make_request("long", length=50)], LONG, hungry=True
    )
    assert {delta.request_id: len(delta.tokens) for delta in report.deltas} == {"short/0": 3}
    assert (report.room, report.busy) == (1, True)
    engine.let(2)
    report = loop.exchange([], 0.0, hungry=False)  # now it is time for the others
    assert report.deltas[0].request_id == "long/0" and len(report.deltas[0].tokens) >= 4


def test_room_counts_what_has_just_been_handed_in() -> None:
    """A report was once taken between inbox and engine: its room was that of the empty engine."""
    engine = Gated(rows=4)
    loop = EngineLoop(lambda: engine)
    engine.let(1)
    report = loop.exchange([make_request(f"p{n}", length=9) for n in range(3)], 0.0, hungry=True)
    assert (report.room, report.busy) == (1, True)


def test_the_engine_goes_on_between_exchanges() -> None:
    engine = Gated(rows=1)
    loop = EngineLoop(lambda: engine)
    engine.let(1)
    loop.exchange([make_request("p", length=6)], 0.0, hungry=False)
    engine.let(5)
    tokens: list[int] = []
    while True:
        report = loop.exchange([], 0.0, hungry=False)
        tokens += [token for delta in report.deltas for token in delta.tokens]
        if not report.busy:
            break
    assert tokens == expected_tokens(make_request("p", length=6))[1:]


def test_unfinished_chains_are_told_of_when_a_report_is_due() -> None:
    told: list[bool] = []

    class Listening(Gated):
        def step(self, tell: bool = True) -> list[Delta]:
            told.append(tell)
            return super().step(tell)

    engine = Listening(rows=1)
    loop = EngineLoop(lambda: engine)
    engine.let(5)
    loop.exchange([make_request("p", length=5)], LONG, hungry=False)
    assert told == [False] * 5
    engine.let(1)
    report = loop.exchange([make_request("q", length=3)], 0.0, hungry=False)
    assert told[5] and [len(delta.tokens) for delta in report.deltas] == [1]


def test_what_the_engine_raises_reaches_the_caller_every_time() -> None:
    loop = EngineLoop(lambda: FakeEngine())
    for _ in range(2):
        with pytest.raises(IndexError, match="no page for raise"):
            loop.exchange([make_request("raise"), make_request("good")], LONG, hungry=False)


def test_what_the_builder_raises_reaches_the_caller() -> None:
    def build() -> FakeEngine:
        raise OSError("weights are torn")

    with pytest.raises(OSError, match="torn"):
        EngineLoop(build).wait_until_built()


def test_merged_deltas_are_one_delta() -> None:
    completion = Completion(make_request("p"), [1, 2, 3], "", "stop")
    first = merge(None, Delta("p/0", [1], Counters(attended_kv=1), logprobs=[b"a"]))
    second = merge(first, Delta("p/0", [2], Counters(attended_kv=2), logprobs=[b"b"]))
    third = merge(second, Delta("p/0", [3], None, completion))
    tokens = array("i", [1, 2, 3])
    assert third == Delta("p/0", tokens, Counters(attended_kv=2), completion, logprobs=[b"a", b"b"])


def test_requests_that_are_given_back_come_with_their_tokens_and_leave_room() -> None:
    engine = Gated(rows=2)
    loop = EngineLoop(lambda: engine)
    engine.let(3)
    requests = [make_request(name, length=50) for name in ("runs", "goes", "waits")]
    loop.exchange(requests, 0.0, hungry=False)
    engine.let(2)
    report = loop.exchange([], LONG, False, None, ["goes/0", "waits/0", "unknown/0"])
    back = {delta.request_id: delta for delta in report.deltas if delta.completion is not None}
    assert {id: delta.completion.finish_reason for id, delta in back.items() if delta.completion} == {
        "goes/0": "abort",
        "waits/0": "abort",
    }
    assert report.room == 1 and report.busy
    engine.let(100)
    assert loop.exchange([], 0.0, False, None, ["runs/0"]).deltas and not loop.exchange([], 0.0, False).busy


@pytest.mark.parametrize("selector", ["dense", "quest"])
def test_chains_that_move_are_bitwise_the_same_in_exact_mode(selector: str) -> None:
    """From one engine to another and back, with sampling: promise 2."""
    requests = around_pages({"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.9})

    def build() -> Engine:
        return make_engine("qwen3", selector, budget=32, exact=True)

    expected, assignments = outcomes(run(build(), requests)), Assignments(requests, max_attempts=3)
    loops = {name: EngineLoop(build) for name in ("a", "b")}
    done: dict[str, Outcome] = {}
    moved: set[str] = set()
    for turn in range(2000):
        for name, loop in loops.items():
            new = assignments.dispatch(name, 3, 1 if not assignments.load("b") else 2)
            back = assignments.movable(name)[: 1 + turn % 2] if turn % 4 == 3 else []
            moved |= set(back)
            report = loop.exchange(new, 0.0, False, None, back)
            for outcome in assignments.report(name, report.deltas):
                done[outcome.completion.request.id] = outcome
        if not assignments.unfinished:
            break
    assert {id: list(outcome.completion.tokens) for id, outcome in done.items()} == {
        id: made[0] for id, made in expected.items()
    }
    assert {id: o.completion.counters.attended_kv for id, o in done.items()} == {
        id: made[4] for id, made in expected.items()
    }
    assert len(moved) > 2 and max(outcome.attempts for outcome in done.values()) > 2
