"""The cache gets what weights and a maximal step leave: a device that is simulated, passes that are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engines import outcome, request, run, tiny_model, tokens

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine, sizing
from seer_ray.engine.rehearsal import largest_decode, largest_prefill
from seer_ray.engine.runner import Runner

GIB = 2**30
WEIGHTS, PREFILL, DECODE = 16 * GIB, 8 * GIB, 4 * GIB
"""The last two of a chunk of 64 tokens and of a batch of 8 rows."""
SEER = SelectorConfig(name="seer", budget=48)


class Device:
    """Has so much memory, of which weights and passes take what they are said to."""

    def __init__(self, total: int) -> None:
        self.total, self.passes = total, list[tuple[str, int, int]]()

    def free(self) -> int:
        return self.total - WEIGHTS

    def peak_of(self, work: Callable[[], None]) -> int:
        work()
        kind, size, _ = self.passes[-1]
        taken = PREFILL * size // 64 if kind == "prefill" else DECODE * size // 8
        if taken > self.free():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return taken


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Device]:
    """Makes one that knows of the passes."""
    made: list[Device] = []

    def watch(kind: str, run: Callable[..., None]) -> None:
        def watched(loaded: Any, decoder: Any, size: int, length: int) -> None:
            made[-1].passes.append((kind, size, length))
            run(loaded, decoder, size, length)

        monkeypatch.setattr(sizing, f"largest_{kind}", watched)

    watch("prefill", largest_prefill)
    watch("decode", largest_decode)

    def make(total: int) -> Device:
        made.append(Device(total))
        return made[-1]

    return make


def settings(**changes: Any) -> EngineConfig:
    return EngineConfig(**({"block_size": 16, "max_batch": 8, "prefill_chunk": 64} | changes))


def test_six_gib_too_little_is_refused_with_the_arithmetic(device: Callable[[int], Device]) -> None:
    with pytest.raises(ConfigError) as refused:
        Engine(tiny_model("qwen3"), settings(), SEER, memory=device(WEIGHTS + PREFILL - 6 * GIB))
    assert str(refused.value) == (
        "engine.kv_memory=auto: 6.00 GiB are missing before the cache has any; the weights leave 2.00 GiB, "
        "and a maximal step takes about 8.00 GiB: 8.00 GiB for engine.prefill_chunk=64, 4.00 GiB for a batch "
        "of 8; lower engine.prefill_chunk or engine.max_batch, or divide the model by engine.tensor_parallel"
    )


def test_one_gib_more_runs(device: Callable[[int], Device]) -> None:
    """A maximal prefill and decode step were run before, and nothing that is decoded is changed by that."""
    made = device(WEIGHTS + PREFILL + GIB)
    engine = Engine(tiny_model("qwen3"), settings(), SEER, memory=made)
    length = engine.model.max_context
    assert made.passes == [("prefill", 64, length), ("decode", 8, length)]
    assert 0 < engine.runner.capacity.bytes <= GIB
    engine.warm_up()
    asked = [request(f"{n}/0", tokens(30 + n, seed=n), 20, temperature=n / 9) for n in range(9)]
    expected = run(Engine(tiny_model("qwen3"), settings(), SEER), asked)
    found = run(engine, asked)
    assert [outcome(found[id]) for id in expected] == [outcome(done) for done in expected.values()]


def test_what_is_set_of_the_cache_must_fit_beside_a_step(device: Callable[[int], Device]) -> None:
    model, total = tiny_model("qwen3"), WEIGHTS + PREFILL + GIB
    with pytest.raises(ConfigError, match=r"^engine\.kv_memory=2GiB: does not fit; .*=1024MiB does$"):
        Engine(model, settings(kv_memory="2GiB"), SEER, memory=device(total))
    assert (
        Engine(model, settings(kv_memory="1MiB"), SEER, memory=device(total)).runner.capacity.bytes <= 2**20
    )


@pytest.mark.parametrize(("kv_memory", "rows"), [("auto", 32), ("2MiB", None), ("100KiB", None)])
def test_rows_that_are_not_set_are_those_that_fit(kv_memory: str, rows: int | None) -> None:
    """By the rule that admits chains: as many as it finds room for run together."""
    model = tiny_model("qwen3")
    engine = Engine(model, settings(max_batch=None, kv_memory=kv_memory), SEER)
    found = engine.runner.max_batch
    assert found == rows or (rows is None and 1 <= found < 32)
    limit = engine.runner.capacity.max_length
    for n in range(2 * found):
        engine.submit(request(f"{n}/0", tokens(2, seed=n), limit - 2))
    engine.step()
    assert found <= len(engine.scheduler.running) + 1 and engine.settings.max_batch == found


def test_rows_that_are_not_set_are_fewer_where_their_step_does_not_fit(
    device: Callable[[int], Device],
) -> None:
    made = device(WEIGHTS + PREFILL + GIB)
    engine = Engine(tiny_model("qwen3"), settings(max_batch=None), SEER, memory=made)
    assert [size for kind, size, _ in made.passes if kind == "decode"] == [32, 16]
    assert engine.runner.max_batch <= 16


@pytest.mark.parametrize("when", ["made", "warmed up"])
def test_memory_that_runs_out_is_a_settings_fault(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves the engine as it was: the next settings can be had."""
    engine = Engine(tiny_model("qwen3"), settings(), SEER)
    asked = [request("a", tokens(20), 10)]
    expected = [outcome(done) for done in run(engine, asked).values()]

    def full(self: Runner) -> None:
        if self.selector.name == "quest":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    monkeypatch.setattr(Runner, "_eager" if when == "made" else "warm_up", full)
    quest = SelectorConfig(name="quest", budget=48)
    with pytest.raises(ConfigError, match=r"^engine\.kv_memory=auto: out of memory while .* set a smaller"):
        engine.configure(settings(), quest)
        engine.warm_up()
    engine.configure(settings(), SEER)
    engine.warm_up()
    assert [outcome(done) for done in run(engine, asked).values()] == expected
