"""Decode steps of models with layers of several kinds, and what a linear layer costs by length."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from seer_ray.bench.models import RandomGates, random_model
from seer_ray.bench.show import show
from seer_ray.bench.steps import ROUNDS, decoding_engine, engine_steps, free_memory, ms, step_time
from seer_ray.config.options import SelectorConfig

if TYPE_CHECKING:
    from rich.console import Console

TURNS = 5
"""Steps that count, of each contender and round."""
LENGTHS = (1024, 4096, 7000, 16384)
"""Of chains of linear layers alone."""
SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 1 << 15,
    "tie_word_embeddings": True,
}
"""The shape that all have."""
DELTA: dict[str, Any] = {
    "linear_num_key_heads": 9,
    "linear_num_value_heads": 9,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}
"""Gated DeltaNet with as many heads as attention, as wide."""
FULL_EVERY = 4


@dataclass(frozen=True)
class Contender:
    """Layers, as a model type of transformers has them, and what selects blocks of full attention."""

    kind: str
    own: dict[str, Any] = field(default_factory=dict)
    """Of its config."""
    selector: str = "dense"

    def model(self, dtype: str) -> RandomGates:
        return random_model(self.kind, SMOLLM2 | self.own, dtype)


def contenders(window: int) -> dict[str, Contender]:
    """By the names that are shown; ``window`` in tokens."""
    hybrid = {**DELTA, "full_attention_interval": FULL_EVERY}
    return {
        "full": Contender("llama"),
        "linear 3:1": Contender("qwen3_5_text", hybrid),
        "linear 3:1, gated": Contender("qwen3_5_text", hybrid, "seer"),
        "window": Contender("mistral", {"sliding_window": window}),
    }


def bench_layers(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows.

    Raises:
        ValueError: the models are not made for so long a context.
    """
    batch, context, budget = max(options.batch), max(options.context), options.budget
    if context > max(LENGTHS):
        raise ValueError(f"--context {context}: bench layers goes up to {max(LENGTHS)} tokens")
    steps = layer_steps(options.dtype, batch, context, budget)
    full = steps["ms_per_step"]["full"]
    show(
        console,
        f"Decode step, batch {batch}, context {context}, window and budget {budget}",
        ("layers", "ms / step", "x full", "MB read"),
        [
            (name, step, round(full / step, 2), steps["mb_read"][name])
            for name, step in steps["ms_per_step"].items()
        ],
    )
    alone = linear_steps(options.dtype, batch)
    show(console, "One linear layer, MLP included, by tokens", tuple(alone), [tuple(alone.values())])
    return {"dtype": options.dtype, **steps, "linear_us_per_layer": alone}


def layer_steps(dtype: str, batch: int, context: int, budget: int) -> dict[str, Any]:
    """Median time of a whole decode step of each, and what it has to read."""
    entered = contenders(budget)
    models: dict[tuple[str, int], RandomGates] = {}
    taken: dict[str, list[float]] = {name: [] for name in entered}
    read: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, one in entered.items():
            key = one.kind, len(one.own)
            if key not in models:
                models[key] = one.model(dtype)
            free_memory()
            selector = SelectorConfig(name=one.selector, budget=budget)
            modes = engine_steps(models[key], selector, batch, context, TURNS)
            best = modes.get(True) or modes[False]
            taken[name] += best.steps
            read[name] = best.bytes
    return {
        "batch": batch,
        "context": context,
        "budget": budget,
        "ms_per_step": ms({name: median(steps) for name, steps in taken.items()}, 1),
        "mb_read": {name: round(size / 1e6) for name, size in read.items()},
    }


def linear_steps(dtype: str, batch: int) -> dict[str, float]:
    """Median time of a decode step of a model of linear layers only, by the length of its chains, in
    microseconds a layer."""
    layers = SMOLLM2["num_hidden_layers"]
    own = {**DELTA, "layer_types": ["linear_attention"] * layers}
    loaded = Contender("qwen3_5_text", own).model(dtype)
    taken: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for _ in range(ROUNDS):
        for length, times in taken.items():
            free_memory()
            engine = decoding_engine(loaded, SelectorConfig(name="dense"), batch, length)
            times += [step_time(engine, engine.overlap)[0] for _ in range(TURNS + 2)][2:]
    return {f"{length:,}": round(1e6 * median(times) / layers, 1) for length, times in taken.items()}
