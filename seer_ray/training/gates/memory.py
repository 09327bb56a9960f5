"""Bytes that distillation needs at its peak, computed from sizes; nothing is allocated."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import ObjectiveConfig
from seer_ray.models.rope import head_dim
from seer_ray.training.gates.imitation import NUMBERS
from seer_ray.training.gates.soft_gate import LOGIT_ROWS, LOGITS

GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """Peak of one worker, in bytes. One row (``train.length`` tokens) is in memory at a time."""

    weights: int
    """Of the frozen model."""
    gates: int
    """Weights, gradients and AdamW's two averages, fp32."""
    layer: int
    """Activations of one layer of the teacher: residual stream, q, k, v, or those of its MLP. What a
    recurrence needs beside is not computed."""
    target: int
    """Block shares of one layer's rows, fp32, and what computes them."""
    imitation: int
    """Logits of a chunk of the gate's rows, and what their gradient needs."""
    lessons: int
    """With several updates a pass: queries, keys and targets of all layers, kept for them."""
    language: int
    """With the next-token loss: every layer's input, one layer again with its gradient, next-token logits."""

    @property
    def total(self) -> int:
        return (
            self.weights
            + self.gates
            + self.lessons
            + max(self.layer + self.target + self.imitation, self.language)
        )

    @property
    def totals(self) -> dict[str, int]:
        """Beside the parts."""
        return {"total": self.total}

    def lines(self) -> list[str]:
        """For a person, largest first."""
        parts = sorted(((getattr(self, f.name), f.name) for f in fields(self)), reverse=True)
        return [f"{name:>10} {size / GIB:7.2f} GiB" for size, name in parts if size] + [
            f"{'peak':>10} {self.total / GIB:7.2f} GiB"
        ]


def plan_memory(
    config: PreTrainedConfig,
    length: int,
    block: int,
    gate_dim: int,
    objective: ObjectiveConfig,
    dtype: torch.dtype,
    layers: int | None = None,
    weights: int | None = None,
    rows_held: int = 1,
) -> MemoryPlan:
    """The plan for a row that is one document, which needs the most.

    Args:
        config: of the model.
        length: tokens of a row.
        block: tokens a block.
        gate_dim: of the gates.
        objective: what is trained.
        dtype: of the model's weights and activations.
        layers: that have a gate; None: all.
        weights: bytes of the model's weights; None: from the config.
        rows_held: rows of a batch that a worker has, whose lessons it keeps between updates.
    """
    size, width = dtype.itemsize, head_dim(config)
    heads, kv_heads, hidden = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    inner, count = config.intermediate_size, config.num_hidden_layers
    gated = count if layers is None else layers
    blocks, rows = length // block, length - max(block, int(objective.skip * length))
    q, kv = heads * width, kv_heads * width
    if weights is None:
        with torch.device("meta"):
            weights = size * sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    gate = kv_heads * gate_dim * (heads // kv_heads + 3) * width + 2 * gate_dim
    # Residual and its norm; q, k, v; q and k rotated; output in two parts and whole; one fp32 copy of q.
    attention = length * (size * (2 * hidden + 2 * (q + 2 * kv) + 3 * q) + 4 * q)
    mlp = length * (size * (2 * hidden + 3 * inner) + 4 * hidden)
    target = length * 2 * kv * 4 + rows * kv_heads * blocks * 4 + 256 * heads * blocks * 4 + 4 * 4 * 2**20
    language = 0
    if objective.lm:
        again = 2 * (attention + mlp) + 6 * 4 * max(LOGITS, heads * length)
        language = count * length * hidden * size + again + 3 * 4 * LOGIT_ROWS * config.vocab_size
    lesson = length * size * (q + kv) + 4 * rows * kv_heads * blocks
    chunk = min(NUMBERS, rows * kv_heads * blocks)
    return MemoryPlan(
        weights=weights,
        gates=16 * gate * gated,
        layer=max(attention, mlp),
        target=target if objective.distill else 0,
        imitation=4 * (8 * chunk + 3 * (chunk // max(1, kv_heads * blocks)) * q) if objective.distill else 0,
        lessons=lesson * gated * rows_held if objective.updates > 1 else 0,
        language=language,
    )


def fitting_length(
    plan_of_length: Callable[[int], MemoryPlan], limit: int, length: int, block: int
) -> int | None:
    """The longest row, in whole blocks below ``length``, whose plan stays below ``limit`` bytes; None: none.

    Args:
        plan_of_length: the plan for a row of so many tokens.
        limit: bytes.
        length: of the row that was too long.
        block: tokens a block.
    """
    low, high = 1, (length - 1) // block  # in blocks
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if plan_of_length(middle * block).total <= limit else (low, middle - 1)
    return low * block if low >= 2 and plan_of_length(low * block).total <= limit else None


def memory_of(device: torch.device) -> int:
    """Bytes that the device has, whoever uses them now."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine had no more; torch says so of the CPU by a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def out_of_memory(
    length: int, plan: Callable[[int], MemoryPlan], block: int, device: torch.device
) -> ConfigError:
    """What to say, with the setting that would fit."""
    limit = memory_of(device)
    needed = plan(length).total
    fits = fitting_length(plan, int(0.9 * limit), length, block)
    computed = f"computed need {needed / GIB:.1f} GiB of {limit / GIB:.1f} GiB"
    if fits is None:
        remedy = "no length fits: take a smaller model, model.dtype=bfloat16 or a larger device"
    elif needed <= 0.9 * limit:
        half = max(2, length // block // 2) * block
        remedy = f"others use the device too; free it, or try train.length={half}"
    else:
        remedy = f"set train.length={fits}"
    return ConfigError(f"train.length={length}: out of memory on {device} ({computed}); {remedy}")
