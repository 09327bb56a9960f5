"""Whole engines: batches of requests against ``model.generate`` and ``generate_batch``, decode steps at long
context, selection included, and our engine beside others that the user has."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import transformers

from seer_ray.bench import against
from seer_ray.bench.models import bench_model
from seer_ray.bench.show import numbers, show
from seer_ray.bench.steps import bench_steps
from seer_ray.bench.timing import seconds
from seer_ray.config.options import EngineConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.models.load import LoadedModel

if TYPE_CHECKING:
    from rich.console import Console

VOCABULARY = 32_000
"""Random prompts use token ids below this."""
STATIC_BATCH = 16
TURNS = 5
"""Decode steps that count, of each contender and round."""


@dataclass(frozen=True)
class Defaults:
    """Of options that depend on the device."""

    model: str
    dtype: str
    batch: tuple[int, ...]
    context: tuple[int, ...]
    budget: int
    requests: int


DEFAULTS = {
    "cpu": Defaults("smollm2", "bfloat16", (1, 8), (1000, 7000), 1024, 32),
    "cuda": Defaults("qwen3-8b", "bfloat16", (16,), (32768,), 4096, 256),
}


def defaults() -> Defaults:
    return DEFAULTS["cuda" if torch.cuda.is_available() else "cpu"]


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


def add_options(parser: argparse._ArgumentGroup) -> None:
    usual = defaults()
    parser.add_argument(
        "--requests", type=int, default=usual.requests, help=f"of mixed length ({usual.requests})"
    )
    parser.add_argument("--longest", type=int, default=128, help="longest completion, tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--context",
        type=numbers,
        default=usual.context,
        help=f"tokens of the decode steps, of layers the most {usual.context}",
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=usual.budget,
        help=f"tokens, of the sparse selectors, and of layers' window ({usual.budget})",
    )
    against.add_options(parser)


def bench_engine(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows.

    Raises:
        ValueError: an option makes no sense.
    """
    found: dict[str, Any] = {"model": options.model}
    if not options.only_rivals:
        found |= _alone(options, console)
    if options.vllm is not None or options.llama_cpp is not None or options.only_rivals:
        found["against"] = against.bench_against(options, console)
    return found


def _alone(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    loaded = bench_model(options.model, options.dtype)
    steps = []
    for context in options.context:
        for batch in options.batch:
            steps.append(bench_steps(loaded, batch, context, options.budget, TURNS))
            _show_steps(console, steps[-1])
    batching = bench_batching(loaded, options.requests, options.longest, options.repeats)
    title = f"{options.requests} requests of mixed length: {batching['ratio']}x {batching['best_other']}"
    show(console, title, ("way", "new tokens / s"), list(batching["tokens_per_s"].items()))
    return {"dtype": options.dtype, "decode": steps, "batching": batching}


def _show_steps(console: Console, found: dict[str, Any]) -> None:
    title = f"Decode step, batch {found['batch']}, context {found['context']}, budget {found['budget']}"
    columns = {
        "x dense": found["over_dense"],
        "x generate": found["over_generate"],
        "host ms": found["host_ms"],
        "host ms, waiting": found["waiting"]["host_ms"],
        "floor ms": found["floor_ms"],
        "floor / step": found["of_floor"],
    }
    rows = [
        (name, step, *(values.get(name, "") for values in columns.values()))
        for name, step in found["ms_per_step"].items()
    ]
    show(console, title, ("selector", "ms / step", *columns), rows)
