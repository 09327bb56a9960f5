"""The computed peak of distillation."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config

from seer_ray.config.training import ObjectiveConfig
from seer_ray.training.gates.memory import GIB, MemoryPlan, fitting_length, plan_memory

QWEN3_4B = Qwen3Config(
    vocab_size=151936,
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)


def plan(length: int = 32768, weights: int | None = 8_040_000_000, **objective: float) -> MemoryPlan:
    options = ObjectiveConfig(**objective)  # type: ignore[arg-type]
    return plan_memory(QWEN3_4B, length, 64, 128, options, torch.bfloat16, weights=weights)


def test_four_billion_parameters_at_32k_fit_into_24_gb() -> None:
    found = plan(weights=None)
    assert found.weights == pytest.approx(4.02e9 * 2, rel=0.01)
    assert found.gates == 36 * 16 * (8 * (4 + 3) * 128 * 128 + 2 * 128)
    assert found.target > 16384 * 8 * 512 * 4
    assert found.total < 24e9


def test_what_costs_more() -> None:
    assert plan(65536).total > plan().total > plan(16384).total
    assert plan(lm=0.1).total > plan().total and plan(lm=0.1).language > 36 * 32768 * 2560 * 2
    assert plan(skip=0.0).target > plan(skip=0.5).target
    assert plan(distill=0.0, lm=1.0).target == 0


def test_several_updates_a_pass_keep_what_it_says_of_every_layer() -> None:
    """Queries and keys in bf16, and shares of 512 blocks in fp32 for half the rows."""
    kept = plan(updates=4)
    assert plan().lessons == 0
    assert kept.lessons == 36 * (32768 * (32 + 8) * 128 * 2 + 16384 * 8 * 512 * 4)
    assert kept.total == plan().total + kept.lessons


def test_the_longest_row_that_fits() -> None:
    limit = plan(20_000).total
    found = fitting_length(plan, limit, 32768, 64)
    assert found is not None and found % 64 == 0
    assert plan(found).total <= limit < plan(found + 64).total
    assert fitting_length(plan, GIB, 32768, 64) is None


def test_lines_name_the_peak() -> None:
    lines = plan().lines()
    assert lines[0].split()[0] == "weights" and lines[-1].split() == [
        "peak",
        f"{plan().total / GIB:.2f}",
        "GiB",
    ]
