"""Steps that are launched before the last one is read give what steps one after the other give.

No GPU: what a device has sampled cannot be seen here before it is waited for, and launches ask it nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import kv_memory, make_engine, outcome, request, thinking, tokens
from tape import HOST, Capture, unasked

from seer_ray.engine import Completion, Counters, Engine, Progress, Request, captured
from seer_ray.engine.captured import Step
from seer_ray.engine.flight import Flight, Mark, Readback
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.engine.sequence import Sequence

SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9, "repetition_penalty": 1.1},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 0.7, "top_k": 20, "min_p": 0.02},
    {"repetition_penalty": 1.3},
]
ENDS = tuple(range(0, 260, 13))
"""End tokens that a random model soon finds."""


class Device(DecodeGraphs):
    """Writes down when a step is launched and when it is read; refuses to be asked during a launch."""

    def __init__(self, engine: Engine, capture: Callable[[Step], Step]) -> None:
        runner = engine.runner
        super().__init__(runner.loaded, runner.decoder, engine.settings.max_batch, capture)
        self.log: list[str] = []
        self.rows = self.launches = 0

    def launch(self, sequences: list[Sequence], ahead: bool) -> Flight:
        self.launches += 1
        self.rows += len(sequences)
        number = self.launches
        self.log.append(f"launch {number}")
        with unasked(tuple(name for name in HOST if name != "numpy")):  # memory of the host is filled
            flight = super().launch(sequences, ahead)
        read = flight._read
        flight._read = lambda: (self.log.append(f"read {number}"), read())[1]  # type: ignore[func-returns-value]
        return flight

    @property
    def ahead(self) -> int:
        """Steps that were launched before the one before them was read."""
        return sum(
            self.log.index(f"launch {n}") < self.log.index(f"read {n - 1}")
            for n in range(2, self.launches + 1)
        )


class Unseen(Readback):
    """Holds nothing of use until it is waited for."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._kept = tensor.clone()
        self._host = torch.full_like(tensor, -(1 << 40))
        self.there = Mark(tensor.device)

    def wait(self) -> torch.Tensor:
        self._host.copy_(self._kept)
        return super().wait()


@pytest.fixture(autouse=True)
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "Readback", Unseen)


def engine_with(overlap: bool, capture: Callable[[Step], Step] = lambda step: step, **kind: Any) -> Engine:
    engine = make_engine(**kind)
    engine.runner.captured = Device(engine, capture)
    assert not engine.overlap, "on a CPU there is nothing to overlap"
    engine.overlap = overlap
    return engine


def device(engine: Engine) -> Device:
    assert isinstance(engine.runner.captured, Device)
    return engine.runner.captured


def requests(**sampling: Any) -> list[Request]:
    """Prompts that end before, at and after the end of a page; all ways of sampling if none is given."""
    return [
        request(f"{n}/0", tokens(length, seed=n), 10 + 4 * n, **(sampling or SAMPLING[n % len(SAMPLING)]))
        for n, length in enumerate((1, 15, 16, 17, 33, 64, 100))
    ]


def run(engine: Engine, items: Iterable[Request]) -> dict[str, tuple[Any, ...]]:
    """What must be the same: outcome, and what the deltas said on the way."""
    for item in items:
        engine.submit(item)
    found: dict[str, Completion] = {}
    told: dict[str, tuple[Any, ...]] = {}
    for delta in engine.stream():
        counters = delta.counters
        assert counters is not None
        tokens, trace, *_ = told.get(delta.request_id, ([], []))
        cost = counters.attended_layers, counters.available_kv
        told[delta.request_id] = tokens + delta.tokens, trace + delta.trace, *cost
        if delta.completion is not None:
            found[delta.request_id] = delta.completion
    engine.scheduler.check()
    assert all(pool.used == 0 for pool in engine.scheduler.pools) and not engine.busy
    return {id: (outcome(done), told[id]) for id, done in found.items()}


def both(items: Iterable[Request], **kind: Any) -> tuple[Engine, Engine]:
    """Runs the requests both ways and compares. Returns the engines: waiting, overlapping."""
    items = list(items)
    waiting, overlapping = engine_with(False, **kind), engine_with(True, **kind)
    assert run(overlapping, items) == run(waiting, items)
    assert device(waiting).ahead == 0 < device(overlapping).ahead
    assert overlapping.stats()["new_tokens"] == waiting.stats()["new_tokens"]
    return waiting, overlapping


@pytest.mark.parametrize("selector", ["dense", "seer", "quest", "window"])
def test_lengths_that_are_known_waste_nothing(selector: str) -> None:
    """More chains than rows; all ways of sampling."""
    waiting, overlapping = both(requests(), selector=selector, budget=48)
    assert device(overlapping).rows == device(waiting).rows == overlapping.stats()["new_tokens"]
    assert device(overlapping).ahead == device(overlapping).launches - 1


def test_captured_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Capture()
    expected = run(engine_with(False, selector="seer", budget=48), requests())
    engine = engine_with(True, capture, selector="seer", budget=48)
    assert run(engine, requests()) == expected
    assert device(engine).ahead > 20 and capture.replays > 30 > capture.captures


@pytest.mark.parametrize("sampling", [{"eos_token_ids": ENDS}, {"stop": ("e", "t!", "q", "\n")}], ids=str)
def test_ends_that_nobody_knew(sampling: dict[str, Any]) -> None:
    """A row too many each, of which nothing is seen."""
    items = [
        request(f"{n}/0", tokens(9 + 7 * n, seed=n), 60, temperature=1.1, repetition_penalty=1.2, **sampling)
        for n in range(10)
    ]
    waiting, overlapping = both(items, selector="quest", budget=48, max_batch=3)
    made = overlapping.stats()["new_tokens"]
    assert device(waiting).rows == made < device(overlapping).rows <= made + len(items)
    assert made < 500, "they ended before their length"


@pytest.mark.parametrize("family", ["qwen3_5_text", "lfm2"])
def test_states_after_a_token_too_many(family: str) -> None:
    both(requests(temperature=1.5, top_p=0.97, eos_token_ids=ENDS), family=family)


@pytest.mark.parametrize("sampling", [{}, {"eos_token_ids": ENDS}], ids=["length", "end"])
def test_preempted_chains(sampling: dict[str, Any]) -> None:
    kind = {"selector": "seer", "budget": 48, "kv_memory": kv_memory(make_engine(selector="seer"), 14)}
    waiting, overlapping = both(
        (
            replace(item, sampling=request("", (), 45, temperature=0.8, **sampling).sampling)
            for item in requests()
        ),
        **kind,
    )
    assert overlapping.stats()["preemptions"] <= waiting.stats()["preemptions"]
    assert sampling or overlapping.stats()["preemptions"] > 0


def test_a_chain_that_outgrows_the_cache() -> None:
    both(
        [request("large", tokens(30), 200), request("small", tokens(20, seed=1), 25)],
        kv_memory=kv_memory(make_engine(), 4),
    )


def test_samples_share_prompt_pages() -> None:
    both([request(f"p/{n}", tokens(69), 30, temperature=1.0, eos_token_ids=ENDS) for n in range(7)])


def test_continued_chains() -> None:
    items = requests(temperature=0.8)
    whole = run(engine_with(False), items)
    begun = [
        replace(item, progress=Progress(tuple(whole[item.id][0][0][: 3 * n]), Counters(100 * n, 200 * n)))
        for n, item in enumerate(items)
    ]
    _, overlapping = both(begun)
    assert overlapping.stats()["new_tokens"] == sum(item.sampling.max_new_tokens for item in items) - 63


def test_recorded_chains() -> None:
    """Their traces are whole, and go on where a row too many has been computed."""
    items = [replace(item, record=n % 2 == 0) for n, item in enumerate(requests(eos_token_ids=ENDS))]
    _, overlapping = both(items, selector="quest", budget=48)
    assert device(overlapping).rows > overlapping.stats()["new_tokens"]


def test_exact_mode_is_waited_for() -> None:
    items = requests(temperature=0.8)
    waiting, overlapping = make_engine(exact=True), make_engine(exact=True)
    overlapping.overlap = True
    assert run(overlapping, items) == run(waiting, items)
    assert overlapping.stats()["steps"] == waiting.stats()["steps"]


@pytest.mark.parametrize("steps", [1, 2, 5, 11, 12])
def test_abort_at_any_moment(steps: int) -> None:
    """The tokens so far are those that the steps so far have made, read or not."""
    items = [request("p/0", tokens(40), 11), request("p/1", tokens(40), 30), request("q/0", tokens(9), 30)]
    found = []
    for overlap in (False, True):
        engine = engine_with(overlap)
        for item in items:
            engine.submit(item)
        deltas = [delta for _ in range(steps) for delta in engine.step()]
        for gone in ("p/0", "p/1"):
            engine.abort(gone)
            engine.scheduler.check()
        deltas += list(engine.stream())
        found.append({d.request_id: outcome(d.completion) for d in deltas if d.completion is not None})
        assert engine.scheduler.pools[0].used == 0
    assert found[0] == found[1] and len(found[0]) == 3


def test_requests_that_come_while_a_step_runs() -> None:
    found = []
    for overlap in (False, True):
        engine, queue, seen = engine_with(overlap, max_batch=3), requests(), {}
        for step in range(1000):
            if queue and step % 4 == 0:
                engine.submit(queue.pop())
            seen |= {d.request_id: outcome(d.completion) for d in engine.step() if d.completion is not None}
            if not queue and not engine.busy:
                break
        found.append(seen)
    assert found[0] == found[1] and len(found[0]) == 7


def test_the_mode_may_change_between_steps() -> None:
    expected = run(engine_with(False), requests())
    engine = engine_with(True)
    for item in requests():
        engine.submit(item)
    found: dict[str, Any] = {}
    while engine.busy:
        engine.overlap = not engine.overlap or len(found) % 2 == 0
        found |= {d.request_id: outcome(d.completion) for d in engine.step() if d.completion is not None}
    assert found == {id: done for id, (done, _) in expected.items()}


def test_counts_of_time_and_bytes() -> None:
    """Time of the device is less than that of the steps; what the rows read is counted once."""
    waiting, overlapping = both([request("a", tokens(40), 20)], selector="quest", budget=48)
    assert overlapping.stats()["decode_bytes"] == waiting.stats()["decode_bytes"]
    for engine in (waiting, overlapping):
        assert 0 < engine.stats()["decode_s"] < engine.stats()["step_s"]


def test_warm_up_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seer_ray.engine.engine.copy_rate", lambda device: 1e9)
    engine = engine_with(True)
    engine.warm_up()
    assert engine.stats()["new_tokens"] == 0 and not engine.busy
    assert run(engine, requests()) == run(engine_with(False), requests())


def test_forced_tokens_are_given_to_the_steps_ahead() -> None:
    """They are known a step before they are due: nothing is computed twice."""
    items = []
    for n, way in enumerate(({}, {"temperature": 0.9}, {"repetition_penalty": 1.3})):
        for item in requests(**way):
            params = replace(item.sampling, thinking=thinking(4, 7, 8, 9) if n else None)
            items.append(replace(item, id=f"{n}-{item.id}", sampling=params))
    waiting, overlapping = both(items)
    assert device(overlapping).rows == device(waiting).rows == overlapping.stats()["new_tokens"]
    done = run(engine_with(True), items)
    for id, ((chain, *_), _) in done.items():
        assert (chain[4:7] == [7, 8, 9]) is not id.startswith("0-")
