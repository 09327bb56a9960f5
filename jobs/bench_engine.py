"""Whole engines: batches of requests against ``model.generate`` and ``generate_batch``, and decode steps at
long context, sparse against our own dense, selection included."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import transformers
from rich.console import Console

from seer_ray.config import EngineConfig, ModelConfig, SelectorConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.engine.bandwidth import copy_rate
from seer_ray.jobs.bench_show import show
from seer_ray.jobs.bench_timing import seconds
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates
from seer_ray.models.load import LoadedModel, load_model
from seer_ray.models.rope import head_dim

VOCABULARY = 32_000
"""Random prompts use token ids below this."""
STATIC_BATCH = 16
BURST = 8
"""Steps of one engine in a row, where each is launched before the last one is read."""


@dataclass(frozen=True)
class Job:
    """One request of the mixed workload."""

    prompt: tuple[int, ...]
    new_tokens: int


def mixed_jobs(count: int, seed: int, longest: int) -> list[Job]:
    """Prompts of 16 to 256 tokens, completions of 8 to ``longest``, log-uniform: a few are long."""
    noise = random.Random(seed)
    return [
        Job(
            tuple(noise.randrange(VOCABULARY) for _ in range(noise.randint(16, 256))),
            int(8 * (longest / 8) ** noise.random()),
        )
        for _ in range(count)
    ]


# -- the same requests, three ways ---------------------------------------------------------------------


def run_engine(engine: Engine, jobs: list[Job]) -> None:
    for index, job in enumerate(jobs):
        engine.submit(Request(str(index), job.prompt, SamplingParams(job.new_tokens)))
    made = sum(len(completion.tokens) for completion in engine.run())
    if made != sum(job.new_tokens for job in jobs):
        raise RuntimeError(f"the engine made {made} tokens")


def run_generate(loaded: LoadedModel, jobs: list[Job]) -> None:
    """Static batches in order of arrival, padded on the left; each lasts as long as its longest request."""
    model: Any = loaded.model
    for start in range(0, len(jobs), STATIC_BATCH):
        batch = jobs[start : start + STATIC_BATCH]
        width = max(len(job.prompt) for job in batch)
        ids = torch.tensor([[0] * (width - len(job.prompt)) + list(job.prompt) for job in batch])
        mask = torch.tensor([[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in batch])
        model.generate(
            ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            max_new_tokens=max(job.new_tokens for job in batch),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )


class GenerateBatch:
    """transformers' own continuous batching, started and warmed up outside the clock."""

    def __init__(self, loaded: LoadedModel) -> None:
        config = transformers.GenerationConfig(
            max_new_tokens=8, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        model: Any = loaded.model
        self.manager = model.init_continuous_batching(generation_config=config)
        self.manager.start()
        self([Job((1,) * 32, 4)])

    def __call__(self, jobs: list[Job]) -> None:
        for index, job in enumerate(jobs):
            self.manager.add_request(list(job.prompt), request_id=str(index), max_new_tokens=job.new_tokens)
        made = finished = 0
        while finished < len(jobs):
            output = self.manager.get_result(timeout=600)
            if output is None:
                raise RuntimeError("generate_batch gave no result for ten minutes")
            if output.is_finished():
                finished += 1
                made += len(output.generated_tokens)
        if made != sum(job.new_tokens for job in jobs):
            raise RuntimeError(f"generate_batch made {made} tokens")

    def stop(self) -> None:
        self.manager.stop(block=True)


def bench_batching(loaded: LoadedModel, count: int, longest: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of each way; the ratio is to the better of the two others."""
    jobs = mixed_jobs(count, 0, longest)
    total = sum(job.new_tokens for job in jobs)
    engine = Engine(loaded, EngineConfig(max_batch=STATIC_BATCH, kv_memory="2GiB"))
    run_engine(engine, jobs[:2])
    others: dict[str, list[float]] = {"generate": [], "generate_batch": []}
    ours: list[float] = []
    for _ in range(repeats):
        ours.append(seconds(lambda: run_engine(engine, jobs)))
        others["generate"].append(seconds(lambda: run_generate(loaded, jobs)))
    # Its own rounds, after the others: it changes the attention of the model it runs on.
    batched = GenerateBatch(loaded)
    for _ in range(repeats):
        others["generate_batch"].append(seconds(lambda: batched(jobs)))
    batched.stop()
    rates = {name: total / median(times) for name, times in {"seer-ray dense": ours, **others}.items()}
    best = max(others, key=lambda name: rates[name])
    return {
        "requests": count,
        "new_tokens": total,
        "prompt_tokens": sum(len(job.prompt) for job in jobs),
        "tokens_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "best_other": best,
        "ratio": round(rates["seer-ray dense"] / rates[best], 2),
    }


# -- decode steps at long context ----------------------------------------------------------------------


def decoding_engine(loaded: LoadedModel, selector: SelectorConfig, batch: int, context: int) -> Engine:
    """An engine whose ``batch`` chains stand at ``context`` tokens."""
    engine = Engine(loaded, EngineConfig(max_batch=batch), selector)
    for index in range(batch):
        engine.submit(Request(str(index), (1, 2 + index), SamplingParams(max_new_tokens=context + 1000)))
    engine.step()
    stretch(engine, context)
    return engine


def stretch(engine: Engine, context: int) -> None:
    """Moves every running chain to ``context`` tokens, over random keys and values.

    Time and memory do not depend on what is in the cache, and real prompts would take hours on a CPU.
    """
    engine.settle()
    pool, block = engine.scheduler.pool, engine.settings.block_size
    for sequence in engine.scheduler.running:
        sequence.tokens += [1] * (context + 1 - len(sequence.tokens))
        sequence.cached = context
        while len(sequence.pages) * block <= context:
            sequence.pages.append(pool.allocate())
    noise = torch.Generator(device=engine.runner.device).manual_seed(0)
    for part in [*engine.runner.cache.kv, *(s for s in engine.runner.cache.summary if s is not None)]:
        part[: pool.used + 1].normal_(generator=noise)


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


def bench_decode(loaded: LoadedModel, batch: int, context: int, budget: int, steps: int) -> dict[str, Any]:
    """Median time of a whole decode step, engines taking turns; of it what the host takes while the device
    waits, also where results are not read during the next step (``waiting``); and the least time that the
    bytes it has to read would take at the device's copy rate."""
    selectors = {
        name: SelectorConfig(name=name, budget=budget) for name in ("dense", "seer", "quest", "window")
    }
    engines = {
        name: decoding_engine(loaded, selector, batch, context) for name, selector in selectors.items()
    }
    overlaps = engines["dense"].overlap
    times: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for turn in range(steps + 2):
        for name, engine in engines.items():
            for overlap in {False, overlaps}:
                taken = step_time(engine, overlap)
                if turn >= 2:
                    times.setdefault((name, overlap), []).append(taken)

    def of(part: int, overlap: bool) -> dict[str, float]:
        return {name: median(taken[part] for taken in times[name, overlap]) for name in engines}

    medians = of(0, overlaps)
    rate = copy_rate(loaded.device)
    floors = {name: read_by(engine) / rate for name, engine in engines.items()}
    return {
        "batch": batch,
        "context": context,
        "budget": budget,
        "ms_per_step": _ms(medians, 1),
        "host_ms": _ms(of(1, overlaps), 3),
        "waiting": {"ms_per_step": _ms(of(0, False), 1), "host_ms": _ms(of(1, False), 3)},
        "copy_gb_s": round(rate / 1e9, 1),
        "floor_ms": _ms(floors, 2),
        "of_floor": {name: round(floors[name] / value, 3) for name, value in medians.items()},
        "speedup_over_dense": {
            name: round(medians["dense"] / value, 2) for name, value in medians.items() if name != "dense"
        },
    }


def _ms(times: dict[str, float], digits: int) -> dict[str, float]:
    return {name: round(value * 1e3, digits) for name, value in times.items()}


def read_by(engine: Engine) -> float:
    """Bytes that one more decode step has to read."""
    before = engine.stats()["decode_bytes"]
    engine.step()
    return engine.stats()["decode_bytes"] - before


class RandomGates(LoadedModel):
    """Untrained gates: what they select is noise, what they cost is real."""

    def load_gates(self, block_size: int) -> Any:
        return init_gates(self.hf_config, GateConfig(block_size, head_dim(self.hf_config)))


def add_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--longest", type=int, default=128, help="longest completion, tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--context", type=int, default=6000, help="of the decode steps, tokens")
    parser.add_argument("--budget", type=int, default=1024, help="of the sparse selectors, tokens")


def bench_engine(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows."""
    loaded = load_model(ModelConfig(name=options.model, dtype=options.dtype))
    gated = RandomGates(**vars(loaded))
    decode = bench_decode(gated, options.batch, options.context, options.budget, steps=15)
    title = f"Decode step, batch {options.batch}, context {options.context}, budget {options.budget}"
    over_dense = decode["speedup_over_dense"]
    rows = [
        (
            name,
            ms,
            over_dense.get(name, ""),
            decode["host_ms"][name],
            decode["waiting"]["host_ms"][name],
            decode["floor_ms"][name],
            decode["of_floor"][name],
        )
        for name, ms in decode["ms_per_step"].items()
    ]
    names = ("selector", "ms / step", "x dense", "host ms", "host ms, waiting", "floor ms", "floor / step")
    show(console, title, names, rows)
    batching = bench_batching(loaded, options.requests, options.longest, options.repeats)
    title = f"{options.requests} requests of mixed length: {batching['ratio']}x {batching['best_other']}"
    show(console, title, ("way", "new tokens / s"), list(batching["tokens_per_s"].items()))
    return {"model": options.model, "dtype": options.dtype, "decode": decode, "batching": batching}
