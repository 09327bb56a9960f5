"""What the host does for a row in a decode step: scheduling, page tables, sampling settings, results.

The engine is whole but for its device, which computes nothing: what is left of a step is the host's. Measured
in steps that tell nothing but what has ended, in steps that tell all, and as a worker mixes them.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from seer_ray.bench.models import random_model
from seer_ray.bench.show import show
from seer_ray.bench.steps import lengthen
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.engine.captured import Size
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.engine.needs import Needs
from seer_ray.engine.sequence import Sequence

if TYPE_CHECKING:
    from rich.console import Console

SHAPE: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 36,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 1 << 18,
}
"""Of Qwen3-8B the host sees the layers alone."""
ROWS = [64, 256]
"""Rows of a step, one case each."""
STEPS = 128
"""Two pages of each row."""
TELLS = 32
"""Steps between two reports of a worker: a second of steps of 30 ms."""
REPEATS = 5
LIMIT_US = 8.0
"""That a row may cost, amortised, at 256 rows."""


class Idle(DecodeGraphs):
    """A device that has computed every step already: the tokens are 0."""

    def run(self, sequences: list[Sequence], size: Size, needs: Needs) -> None:
        pass


def idle_engine(rows: int, context: int, **sampling: Any) -> Engine:
    """An engine without a device, whose ``rows`` chains stand at ``context`` tokens."""
    model = random_model("qwen3", SHAPE, "float32")
    length = context + 4 * STEPS * (REPEATS + 1)
    settings = EngineConfig(max_batch=rows, max_length=length, kv_memory="64GiB", prefill_chunk=2 * rows)
    engine = Engine(model, settings, SelectorConfig(name="seer", budget=4096))
    runner = engine.runner
    runner.captured = Idle(runner.loaded, runner.decoder, rows, lambda step: step)
    params = SamplingParams(length - 2, **sampling)
    for index in range(rows):
        engine.submit(Request(str(index), (1, 2), params))
    while len(engine.scheduler.running) < rows or engine.stats()["waiting"]:
        engine.step()
    engine.settle()
    lengthen(engine, context)
    engine.overlap = True
    return engine


def row_time(engine: Engine, tells: int) -> float:
    """Seconds of a row and step, where every ``tells``-th step tells what the chains have come to."""
    rows, began = len(engine.scheduler.running), time.perf_counter()
    for step in range(STEPS):
        engine.step(tell=step % tells == tells - 1)
    return (time.perf_counter() - began) / STEPS / rows


def bench_host(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows."""
    found = []
    for rows in options.rows or ROWS:
        engine = idle_engine(rows, max(options.context), temperature=0.6, top_p=0.95, top_k=20)
        row_time(engine, 1)
        ways = {"as a worker": TELLS, "telling all": 1}
        took = {name: median(row_time(engine, tells) for _ in range(REPEATS)) for name, tells in ways.items()}
        found.append({"rows": rows, **{name: round(1e6 * value, 2) for name, value in took.items()}})
    title = f"Host time of a row and step in us; at most {LIMIT_US:g} are wanted at 256 rows"
    show(console, title, tuple(found[0]), [tuple(row.values()) for row in found])
    return {"context": max(options.context), "us_per_row_step": found}
