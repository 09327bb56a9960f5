"""The captured decode step gives what the step of separate operations gives. No GPU: see ``tape``; what a CPU
captures itself is in test_tapes.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import SELECTORS, around_pages, eager, kv_memory, make_engine, outcomes, request, run, tokens
from tape import Capture

from seer_ray.engine import Engine, Request, graphs, passes
from seer_ray.engine.captured import Step
from seer_ray.engine.graphs import DecodeGraphs, Layers, Sampling, buckets, graph_count, widths
from seer_ray.selectors.base import CurrentPages

KINDS: list[dict[str, Any]] = [{"selector": name, "budget": 48} for name in SELECTORS]
KINDS += [
    {"selector": "quest", "budget": 64, "threshold": 0.1},
    {"selector": "seer", "budget": 64, "mass": 0.7, "fraction": 0.5},
    {"selector": "seer", "budget": 48, "layers": {"0": "dense"}},
    {"selector": "seer", "budget": 48, "kv_dtype": "int8"},
]
KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 0.7, "top_k": 20, "min_p": 0.02},
    {"repetition_penalty": 1.3},
    {"temperature": 1.2, "top_p": 0.95, "repetition_penalty": 1.1},
]


@pytest.fixture
def capture() -> Capture:
    return Capture()


def captured(engine: Engine, capture: Callable[[Step], Step]) -> Engine:
    """The engine with its decode steps captured."""
    runner = engine.runner
    runner.captured = DecodeGraphs(runner.loaded, runner.decoder, engine.settings.max_batch, capture)
    return engine


@KIND
def test_rows_that_join_and_leave(kind: dict[str, Any], capture: Capture) -> None:
    """Eight chains of different lengths in five rows: rows change, and pages fill at any time."""
    mixed = [
        replace(item, sampling=request("", (), item.sampling.max_new_tokens, **SAMPLING[n % 3]).sampling)
        for n, item in enumerate(around_pages())
    ]
    expected = outcomes(run(eager(make_engine(**kind, max_batch=5)), mixed))
    engine = captured(make_engine(**kind, max_batch=5), capture)
    assert outcomes(run(engine, mixed)) == expected
    assert capture.captures < 12 and capture.replays > 60
    assert engine.runner.uncaptured is None and engine.stats()["eager_steps"] == 0


@pytest.mark.parametrize("sampling", SAMPLING, ids=str)
def test_sampling(sampling: dict[str, Any], capture: Capture) -> None:
    expected = outcomes(run(eager(make_engine()), around_pages(sampling)))
    assert outcomes(run(captured(make_engine(), capture), around_pages(sampling))) == expected


def test_all_ways_of_sampling_in_one_batch(capture: Capture) -> None:
    """One after the other in three rows, so that a row's penalties are not those of who had it before."""
    mixed = [
        request(f"{n}/0", tokens(20, seed=n), 10 + 3 * n, **SAMPLING[n % len(SAMPLING)]) for n in range(12)
    ]
    expected = outcomes(run(eager(make_engine(max_batch=3)), mixed))
    assert outcomes(run(captured(make_engine(max_batch=3), capture), mixed)) == expected


@pytest.mark.parametrize("selector", ["dense", "seer"])
def test_preempted_chains(selector: str, capture: Capture) -> None:
    settings = {
        "selector": selector,
        "budget": 48,
        "kv_memory": kv_memory(make_engine(selector=selector), 14),
    }
    expected = outcomes(run(eager(make_engine(**settings)), around_pages({"temperature": 0.8})))
    engine = captured(make_engine(**settings), capture)
    assert outcomes(run(engine, around_pages({"temperature": 0.8}))) == expected
    assert engine.stats()["preemptions"] > 0


def test_samples_share_prompt_pages(capture: Capture) -> None:
    mixed = [request(f"p/{n}", tokens(69), 30, temperature=1.0) for n in range(6)]
    kind = {"selector": "seer", "budget": 48, "max_batch": 4}
    expected = outcomes(run(eager(make_engine(**kind)), mixed))
    assert outcomes(run(captured(make_engine(**kind), capture), mixed)) == expected


@pytest.mark.parametrize("selector", ["dense", "quest"])
def test_recorded_chains_have_captures_of_their_own(selector: str, capture: Capture) -> None:
    mixed = around_pages()
    for n in (2, 5):
        mixed[n] = replace(mixed[n], record=True)
    kind = {"selector": selector, "budget": 48, "max_batch": 8}
    expected = traced(eager(make_engine(**kind)), mixed)
    engine = captured(make_engine(**kind), capture)
    assert traced(engine, mixed) == expected
    assert engine.stats()["eager_steps"] == 0
    assert {form.recorded for form in engine.runner.captured.captured if isinstance(form, Layers)} == {
        True,
        False,
    }


def traced(engine: Engine, requests: list[Request]) -> dict[str, list[bytes]]:
    """What each chain's steps attended."""
    for item in requests:
        engine.submit(item)
    found: dict[str, list[bytes]] = {item.id: [] for item in requests}
    for delta in engine.stream():
        found[delta.request_id] += delta.trace
    assert [len(found[item.id]) for item in requests if item.record] == [
        item.sampling.max_new_tokens for item in requests if item.record
    ]
    return found


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gpt_oss", "qwen3_next"])
def test_mixtures_of_experts(family: str, capture: Capture) -> None:
    kind = {"family": family, "max_batch": 5}
    expected = outcomes(run(eager(make_engine(**kind)), around_pages()))
    engine = captured(make_engine(**kind), capture)
    assert outcomes(run(engine, around_pages())) == expected
    assert engine.runner.uncaptured is None and capture.replays > 60


def test_all_is_captured_at_the_start(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest first, and no chain waits for a capture: greedy ones and those that draw, of any length."""
    monkeypatch.setattr(graphs, "LEAST_WIDTH", 32)
    expected = outcomes(run(eager(make_engine(max_batch=5)), around_pages(*SAMPLING[:4])))
    engine = captured(make_engine(max_batch=5), capture)
    found = engine.runner.captured
    assert found is not None
    engine.runner.warm_up()
    max_pages, block = engine.runner.cache.max_pages, engine.settings.block_size
    made = list(found.captured)
    assert len(made) == capture.captures == graph_count(5, max_pages, block)
    assert made[0] == Layers(5, max_pages) and made[-1] == Sampling(1)
    assert outcomes(run(engine, around_pages(*SAMPLING[:4]))) == expected
    assert list(found.captured) == made
    looked_at = []
    layers = found.layers
    found.layers = lambda rows, pages, *rest: (looked_at.append(pages), layers(rows, pages, *rest))  # type: ignore
    found.captured.clear()
    run(engine, [request("short", tokens(10), 5)])
    assert set(looked_at) == {2}, "a table as wide as the chain is long"


def test_the_time_of_a_capture_is_not_the_steps(capture: Capture) -> None:
    """Repetition penalties are captured when they first come."""

    def slow(step: Step) -> Step:
        time.sleep(0.2)
        return capture(step)

    engine = captured(make_engine(), slow)
    run(engine, [request("a", tokens(20), 10, repetition_penalty=1.2)])
    assert capture.captures == 2 and engine.stats()["step_s"] > 0.4 > 0.2 > engine.stats()["decode_s"]


def test_capture_that_fails_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """And every token is right all the same."""

    def refuse(step: Step) -> Step:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    expected = outcomes(run(eager(make_engine(selector="seer", budget=48)), around_pages()))
    engine = captured(make_engine(selector="seer", budget=48), refuse)
    with caplog.at_level(logging.WARNING):
        assert outcomes(run(engine, around_pages())) == expected
    (record,) = caplog.records
    assert "decoding uncaptured" in record.message and "stream is capturing" in record.message
    assert "and more" not in record.message


@pytest.mark.parametrize("asks", [True, False])
def test_the_tape_tells_what_the_host_decides(
    asks: bool, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which pages are full, decided on the host: refused where it asks, else frozen in the replays."""
    chain = request("a", tokens(100), 60)
    expected = outcomes(run(eager(make_engine(selector="quest", budget=48)), [chain]))
    engine = captured(make_engine(selector="quest", budget=48), capture)

    class Decided(CurrentPages):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            if asks:
                page = int(self.pages[0])
            else:
                (sequence,) = engine.scheduler.running
                page = sequence.pages[0][-1] if (sequence.cached + 1) % 16 == 0 else 0
            self.target = torch.full_like(self.pages, page)

    monkeypatch.setattr(passes, "CurrentPages", Decided)
    if asks:
        with pytest.raises(AssertionError, match="asks the host"):
            run(engine, [chain])
    else:
        assert outcomes(run(engine, [chain])) != expected


def test_buckets() -> None:
    assert buckets(1) == [1]
    assert buckets(3) == [1, 2, 3]
    assert buckets(16) == [1, 2, 4, 8, 16]
    assert buckets(64) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]
    assert buckets(20) == [1, 2, 4, 8, 16, 20]
    assert buckets(130) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 96, 128, 130]


def test_widths() -> None:
    assert widths(512, 64) == [64, 128, 256, 512]
    assert widths(513, 64) == [64, 128, 256, 512, 513]
    assert widths(64, 64) == [64] and widths(3, 64) == [3]
