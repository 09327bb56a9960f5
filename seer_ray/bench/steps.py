"""Whole decode steps at long context: our selectors, our dense and ``model.generate``, in rounds."""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList

from seer_ray.bench.timing import seconds
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.config.selectors import SELECTORS
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.engine.bandwidth import copy_rate
from seer_ray.kernels.quantise import tensors
from seer_ray.models.load import LoadedModel
from seer_ray.models.patch import attention_shape

CONTENDERS = {name: (name, "auto") for name, traits in SELECTORS.items() if traits.benchmarked}
CONTENDERS["seer, int8"] = "seer", "int8"
"""Selector and ``engine.kv_dtype``."""
GENERATE = "generate"
"""``model.generate`` with the cache that it makes by default."""
ROUNDS = 3
"""Every contender is set up so many times, one at a time: a cache of this length may fit once only."""
ROOM = 1024
"""Tokens that an engine's chains may grow by while they are measured."""
BURST = 8
"""Steps of one engine in a row, where each is launched before the last one is read."""


def bench_steps(loaded: LoadedModel, batch: int, context: int, budget: int, turns: int) -> dict[str, Any]:
    """Median time of a whole decode step; of it what the host takes while the device waits, also where
    results are not read during the next step (``waiting``); and the least time that the bytes it has to read
    would take at the device's copy rate.

    Args:
        loaded: with gates.
        batch: rows, each of a chain of its own.
        context: tokens of each.
        budget: of the sparse selectors.
        turns: steps that count, of each contender in each of the rounds.

    Raises:
        ValueError: the model is not made for so long a context.
    """
    if context + 2 * (turns + 3) * BURST > loaded.max_context:
        raise ValueError(f"--context {context}: {loaded.name} has room for {loaded.max_context} tokens")
    taken: dict[bool, dict[str, Taken]] = {False: {}, True: {}}
    generate: list[float] = []
    for _ in range(ROUNDS):
        for name, (selected_by, kv_dtype) in CONTENDERS.items():
            free_memory()
            selector = SelectorConfig(name=selected_by, budget=budget)
            for overlap, steps in engine_steps(loaded, selector, batch, context, turns, kv_dtype).items():
                taken[overlap].setdefault(name, Taken([], [], 0.0)).add(steps)
        free_memory()
        # It copies the cache of a layer in each step: what fits our engines may not fit it.
        with contextlib.suppress(torch.OutOfMemoryError):
            generate += generate_steps(loaded, batch, context, turns)
    best = taken[True] or taken[False]
    medians = {name: median(steps.steps) for name, steps in best.items()}
    if generate:
        medians[GENERATE] = median(generate)
    rate = copy_rate(loaded.device)
    floors = {name: steps.bytes / rate for name, steps in best.items()}
    return {
        "batch": batch,
        "context": context,
        "budget": budget,
        "ms_per_step": ms(medians, 1),
        "host_ms": ms({name: median(steps.host) for name, steps in best.items()}, 3),
        "waiting": {
            "ms_per_step": ms({name: median(steps.steps) for name, steps in taken[False].items()}, 1),
            "host_ms": ms({name: median(steps.host) for name, steps in taken[False].items()}, 3),
        },
        "copy_gb_s": round(rate / 1e9, 1),
        "floor_ms": ms(floors, 2),
        "of_floor": {name: round(floors[name] / medians[name], 3) for name in floors},
        "over_dense": _over("dense", medians),
        "over_generate": _over(GENERATE, medians) if generate else {},
    }


def _over(base: str, medians: dict[str, float]) -> dict[str, float]:
    return {name: round(medians[base] / value, 2) for name, value in medians.items() if name != base}


def ms(times: dict[str, float], digits: int) -> dict[str, float]:
    return {name: round(value * 1e3, digits) for name, value in times.items()}


def free_memory() -> None:
    """Of whoever was measured before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# -- our engine ----------------------------------------------------------------------------------------


@dataclass
class Taken:
    """By the steps of one engine, in seconds."""

    steps: list[float]
    host: list[float]
    """Of them, how long the host worked and the device did not."""
    bytes: float
    """That one of them has to read."""

    def add(self, other: Taken) -> None:
        self.steps += other.steps
        self.host += other.host
        self.bytes = other.bytes


def engine_steps(
    loaded: LoadedModel,
    selector: SelectorConfig,
    batch: int,
    context: int,
    turns: int,
    kv_dtype: str = "auto",
) -> dict[bool, Taken]:
    """With and, where the engine can, without waiting for each step's result."""
    engine = decoding_engine(loaded, selector, batch, context, kv_dtype)
    modes = {False, engine.overlap}
    pairs = {overlap: [step_time(engine, overlap) for _ in range(turns + 2)][2:] for overlap in modes}
    read = read_by(engine)
    return {
        overlap: Taken([step for step, _ in found], [host for _, host in found], read)
        for overlap, found in pairs.items()
    }


def decoding_engine(
    loaded: LoadedModel, selector: SelectorConfig, batch: int, context: int, kv_dtype: str = "auto"
) -> Engine:
    """An engine whose ``batch`` chains stand at ``context`` tokens."""
    length = min(context + ROOM, loaded.max_context)
    settings = EngineConfig(max_batch=batch, max_length=length, kv_dtype=kv_dtype)
    engine = Engine(loaded, settings, selector)
    for index in range(batch):
        engine.submit(Request(str(index), (1, 2 + index), SamplingParams(max_new_tokens=length - 2)))
    engine.step()
    stretch(engine, context)
    return engine


def stretch(engine: Engine, context: int) -> None:
    """Moves every running chain to ``context`` tokens, over random keys and values.

    Time and memory do not depend on what is in the cache, and real prompts would take hours on a CPU.
    """
    lengthen(engine, context)
    scheduler = engine.scheduler
    noise = torch.Generator(device=engine.runner.device).manual_seed(0)
    cache = engine.runner.cache
    for kv, group in zip(cache.kv, cache.group_of, strict=True):
        if kv is None or group is None:
            continue
        numbers, scales = tensors(kv)
        filled = scheduler.pools[group].used + 1
        used = numbers[:filled]
        if scales is None:
            used.normal_(generator=noise)
        else:
            used.copy_(torch.randint(-99, 100, used.shape, generator=noise, device=used.device))
            scales[:filled] = 1 / 99
    for summary, group in zip(cache.summary, cache.group_of, strict=True):
        if summary is not None and group is not None:
            summary[: scheduler.pools[group].used + 1].normal_(generator=noise)


def lengthen(engine: Engine, context: int) -> None:
    """Moves every running chain to ``context`` tokens, over whatever is in its pages."""
    engine.settle()
    scheduler, block = engine.scheduler, engine.settings.block_size
    for sequence in scheduler.running:
        sequence.tokens += [1] * (context + 1 - len(sequence.tokens))
        sequence.cached, sequence.secured, sequence.placed = context, 0, False
        for pool, pages in zip(scheduler.pools, sequence.pages, strict=True):
            behind = pool.keeps.behind(context, block, decodes=True)
            for index in behind[: max(0, len(pages) - behind.start)]:
                if pages[index]:
                    pool.release(pages[index])
                    pages[index] = 0
            while len(pages) * block <= context:
                pages.append(0 if len(pages) in behind else pool.allocate())


def step_time(engine: Engine, overlap: bool) -> tuple[float, float]:
    """Seconds of a decode step, and those of them in which the host works and the device does not."""
    engine.settle()
    engine.overlap = overlap
    count = BURST if overlap else 1
    if overlap:
        engine.step()  # each of those measured has one before it in flight
    before = engine.stats()["decode_s"]
    taken = seconds(lambda: [engine.step() for _ in range(count)])
    return taken / count, max(0.0, taken - (engine.stats()["decode_s"] - before)) / count


def read_by(engine: Engine) -> float:
    """Bytes that one more decode step has to read."""
    before = engine.stats()["decode_bytes"]
    engine.step()
    return engine.stats()["decode_bytes"] - before


# -- transformers --------------------------------------------------------------------------------------


class Clock(StoppingCriteria):
    """Never stops anything: it is called once a step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        if input_ids.is_cuda:
            torch.cuda.synchronize(input_ids.device)
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def generate_steps(loaded: LoadedModel, batch: int, context: int, turns: int) -> list[float]:
    """Seconds of steps of ``model.generate``, greedy, whose cache holds ``context`` random tokens a row."""
    model: Any = loaded.model
    shape = attention_shape(model)
    cache = DynamicCache(config=loaded.hf_config)
    size = (batch, shape.kv_heads, context, shape.head_dim)
    for layer in range(shape.layers):
        keys, values = (torch.randn(size, dtype=loaded.dtype, device=loaded.device) for _ in range(2))
        cache.update(keys, values, layer)
        del keys, values
    ids = torch.ones(batch, context + 1, dtype=torch.long, device=loaded.device)
    clock = Clock()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        max_new_tokens=turns + 3,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    return [after - before for before, after in zip(clock.times[2:], clock.times[3:], strict=False)]
