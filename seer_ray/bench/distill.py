"""Steps of distillation: tokens per second, peak memory beside the computed one, hours of the recipe."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from seer_ray.bench.memory import device_memory
from seer_ray.bench.models import RandomGates, bench_model
from seer_ray.bench.show import numbers, show
from seer_ray.bench.timing import seconds
from seer_ray.config.training import ObjectiveConfig, TrainConfig
from seer_ray.corpora.pack import Pack, Share
from seer_ray.training.gates.losses import GateTraining
from seer_ray.training.gates.memory import plan_memory
from seer_ray.training.optim import Optimizer

if TYPE_CHECKING:
    from rich.console import Console

BLOCK = 64
RECIPE = 0.42e9
"""Tokens that the published gates were trained on (SeerAttention-R, arXiv:2506.08889)."""
LENGTH = {"cuda": 32768, "cpu": 2048}
"""Usual tokens of a row."""
COLUMNS = {
    "updates": "updates",
    "pass_s": "s a pass",
    "tokens_s": "tokens/s",
    "recipe_hours": "hours for 0.42 B tokens",
    "peak_mib": "peak, MiB",
    "plan_mib": "computed, MiB",
}


@dataclass
class Pass:
    """One pass of the model and the updates that it serves; calls are numbered."""

    training: GateTraining
    optimizer: Optimizer
    packs: list[Pack]
    updates: int
    autocast: bool
    number: int = 0

    def __call__(self) -> None:
        device = self.training.device
        for part in range(self.updates):
            self.optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
                self.training.loss(self.packs, Share(self.number, part, self.updates))
            nn.utils.clip_grad_norm_(self.training.module.parameters(), 1.0)
            self.optimizer.step(1e-3)
        self.number += 1
        if device.type == "cuda":
            torch.cuda.synchronize()


def measure(loaded: RandomGates, length: int, updates: int, passes: int) -> dict[str, Any]:
    """Medians of passes over a row of one document, after one that is not counted.

    Args:
        loaded: the model, with its untrained gates.
        length: tokens of the row.
        updates: steps a pass.
        passes: that count.
    """
    memory = device_memory()
    objective, config = ObjectiveConfig(updates=updates), loaded.hf_config
    gates = loaded.load_gates(BLOCK)
    training = GateTraining(loaded.model, gates, range(len(gates)), objective)
    tokens = torch.arange(length).mul_(7919).remainder_(config.vocab_size)
    once = Pass(
        training,
        Optimizer(training.module, TrainConfig(optimizer="adamw")),
        [Pack.of([tokens])],
        updates,
        loaded.dtype == torch.bfloat16,
    )
    once()
    memory.forget_peak()
    taken = median(seconds(once) for _ in range(passes))
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    plan = plan_memory(config, length, BLOCK, gates[0].gate_dim, objective, loaded.dtype, weights=weights)
    return {
        "updates": updates,
        "pass_s": round(taken, 3),
        "tokens_s": round(length / taken, 1),
        "recipe_hours": round(RECIPE / (length / taken) / 3600, 1),
        "peak_mib": round((memory.peak() + weights) / 2**20),
        "plan_mib": round(plan.total / 2**20),
    }


def add_options(parser: argparse._ArgumentGroup) -> None:
    usual = LENGTH["cuda" if torch.cuda.is_available() else "cpu"]
    parser.add_argument("--length", type=int, default=usual, help=f"tokens of a row ({usual})")
    parser.add_argument("--updates", type=numbers, default=[1, 8], help="steps a pass [1, 8]")
    parser.add_argument("--passes", type=int, default=3, help="passes that count (3)")


def bench_distill(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows.

    Raises:
        ValueError: a row without two blocks, or a model that cannot be had.
    """
    if options.length < 2 * BLOCK:
        raise ValueError(f"--length {options.length}: must be at least two blocks, {2 * BLOCK} tokens")
    loaded = bench_model(options.model, options.dtype)
    rows = [measure(loaded, options.length, updates, options.passes) for updates in options.updates]
    title = f"Distillation of {options.model}, {options.dtype}, rows of {options.length:,} tokens"
    show(console, title, tuple(COLUMNS.values()), [tuple(row.values()) for row in rows])
    return {"model": options.model, "dtype": options.dtype, "length": options.length, "rows": rows}
