"""Decode steps on a CPU are taped and run again: what comes out, and what a tape holds on to."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import around_pages, eager, make_engine, outcomes, run

from seer_ray.engine import Delta, Engine, Request, tapes
from seer_ray.engine.mixers import attention
from seer_ray.engine.tape import record
from seer_ray.engine.tapes import DecodeTapes
from seer_ray.kernels import compiled
from seer_ray.kernels.norm import reference, rms_norm

pytestmark = pytest.mark.skipif(compiled.binary() is None, reason="no C++ compiler: steps are not taped")

KINDS: list[dict[str, Any]] = [
    *({"selector": name, "budget": 48} for name in ("dense", "seer", "quest", "window", "random")),
    {"selector": "quest", "budget": 64, "threshold": 0.1},
    {"selector": "seer", "budget": 64, "mass": 0.7, "fraction": 0.6},
    {"selector": "quest", "budget": 64, "fraction": 0.5, "head_shares": {"1": [0.5, 1.5]}},
    {"selector": "seer", "budget": 48, "layers": {"0": "dense"}, "kv_dtype": "int8"},
    {"selector": "seer", "budget": 48, "family": "qwen2", "block": 8},
]
SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_p": 0.8, "repetition_penalty": 1.2},
    {"temperature": 0.7},
]


def requests() -> list[Request]:
    return around_pages(*SAMPLING)


def tapes_of(engine: Engine) -> DecodeTapes:
    found = engine.runner.captured
    assert isinstance(found, DecodeTapes) and found.failure is None
    return found


def counted(engine: Engine) -> list[str]:
    """``taped`` or ``again`` for each step from now on."""
    found, steps = tapes_of(engine), []

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        again, first = record(step), True

        def run_again() -> None:
            nonlocal first
            steps.append("taped" if first else "again")
            first = False
            again()

        return run_again

    found.capture = capture
    return steps


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_rows_that_join_and_leave(kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight chains of different lengths in five rows: rows change, and pages fill at any time."""
    monkeypatch.setattr(tapes, "KEPT", 99)
    expected = outcomes(run(eager(make_engine(**kind, max_batch=5)), requests()))
    engine = make_engine(**kind, max_batch=5)
    steps = counted(engine)
    assert outcomes(run(engine, requests())) == expected
    assert steps.count("again") > 20 and len(steps) == engine.stats()["steps"]
    # As many rows as there are sequences, and no page table that is wider than need be.
    forms = list(tapes_of(engine).captured)
    block = engine.settings.block_size
    assert {form.rows for form in forms} == {1, 2, 3, 4, 5}
    assert max(form.pages for form in forms) == 256 // block  # for up to 150 tokens
    assert {form.fills for form in forms} == {True, False}


def test_tapes_that_are_not_used_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outcomes(run(eager(make_engine(selector="seer", budget=48)), requests()))
    monkeypatch.setattr(tapes, "KEPT", 2)
    engine = make_engine(selector="seer", budget=48)
    steps = counted(engine)
    assert outcomes(run(engine, requests())) == expected
    assert len(tapes_of(engine).captured) == 2
    assert steps.count("taped") > 4


def test_a_step_that_asks_is_not_taped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs operation by operation, and that is said once."""
    expected = outcomes(run(eager(make_engine(selector="quest", budget=48)), requests()))

    def asking(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids, counts = select(*arguments)
        assert int(counts.sum()) > 0
        return ids, counts

    select = attention.select
    monkeypatch.setattr(attention, "select", asking)
    engine = make_engine(selector="quest", budget=48)
    with caplog.at_level(logging.WARNING):
        assert outcomes(run(engine, requests())) == expected
    (message,) = caplog.messages
    assert "decoding uncaptured, slower" in message and "asks what a tensor holds" in message
    assert engine.runner.uncaptured is not None and "asks what a tensor holds" in engine.runner.uncaptured
    assert engine.stats()["captured_steps"] == 1 < engine.stats()["eager_steps"]


@pytest.mark.parametrize("family", ["qwen3_next", "falcon_h1", "lfm2"])
def test_a_step_that_fails_at_its_end_moves_states_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(step: Callable[[], None]) -> Callable[[], None]:
        step()
        raise RuntimeError("cannot be taped")

    items = requests()
    expected = outcomes(run(eager(make_engine(family)), items))
    monkeypatch.setattr(DecodeTapes.__init__, "__defaults__", (failing,))
    engine = make_engine(family)
    assert outcomes(run(engine, items)) == expected
    assert engine.runner.captured is not None and engine.runner.captured.failure == "cannot be taped"


def test_recorded_rows_are_too() -> None:
    mixed = requests()
    mixed[2] = replace(mixed[2], record=True)
    kind = {"selector": "quest", "budget": 48, "max_batch": 8}
    expected = [(d.request_id, d.trace) for d in stream(eager(make_engine(**kind)), mixed) if d.trace]
    engine = make_engine(**kind)
    steps = counted(engine)
    assert [(d.request_id, d.trace) for d in stream(engine, mixed) if d.trace] == expected
    assert len(steps) == engine.stats()["steps"] == engine.stats()["captured_steps"]


def stream(engine: Engine, items: list[Request]) -> Iterator[Delta]:
    for item in items:
        engine.submit(item)
    return engine.stream()


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_mixtures_of_experts(family: str) -> None:
    expected = outcomes(run(eager(make_engine(family=family)), requests()))
    engine = make_engine(family=family)
    steps = counted(engine)
    assert outcomes(run(engine, requests())) == expected
    assert len(steps) == engine.stats()["captured_steps"] > 20


def test_exact_mode_and_the_oracle_are_not_taped() -> None:
    assert make_engine(exact=True).runner.captured is None
    assert make_engine(selector="oracle", budget=48).runner.captured is None


@torch.inference_mode()
def test_what_a_tape_does_again() -> None:
    """Views, casts, operations in place and with several outputs, compiled ones; on what is there by then."""
    x, weight = torch.randn(3, 8), torch.randn(8)
    kept, norm, best = torch.zeros(8, 3), torch.zeros(3, 8), torch.zeros(3, 2, dtype=torch.int64)

    def step() -> None:
        y = x.view(24).view(3, 8).double().add(1).float()
        sums = torch.zeros(3, 8)
        sums.add_(y).mul_(2)
        kept.copy_(sums.T)
        norm.copy_(rms_norm(y, weight, 1e-6))
        best.copy_(y.topk(2, dim=1).indices)

    def check() -> None:
        y = x + 1
        torch.testing.assert_close(kept, 2 * y.T)
        torch.testing.assert_close(norm, reference(y, weight, 1e-6))
        assert torch.equal(best, y.topk(2, dim=1).indices)

    again = record(step)
    check()
    again()  # that was the run that it was taped in
    for seed in range(3):
        x.normal_(generator=torch.Generator().manual_seed(seed))
        gc.collect()
        spread = [torch.full((3, 8), float("nan")) for _ in range(64)]  # would be put where memory is free
        again()
        check()
        del spread


def test_threads_do_not_write_on_each_others_tapes() -> None:
    from threading import Thread

    x, weight = torch.randn(3, 8), torch.randn(8)
    outs: list[torch.Tensor] = []

    def step() -> None:
        other = Thread(target=lambda: outs.append(rms_norm(x, weight, 1e-6)))
        other.start()
        other.join()

    again = record(step)
    again()
    x.zero_()
    again()
    assert len(outs) == 1 and bool(outs[0].any())
