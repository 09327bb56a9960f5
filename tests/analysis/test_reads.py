"""What plans allow to be read, beside the plans themselves and steps counted one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from seer_ray.analysis.reads import reads, tokens_read
from seer_ray.config.options import PlanConfig, SelectorConfig
from seer_ray.models.plan import resolve_plan


@pytest.mark.parametrize(
    "layout",
    [PlanConfig(ratio="3"), PlanConfig(repeat=["gated", "quest:128"]), PlanConfig(named="all_anchor")],
)
@pytest.mark.parametrize(
    "selector",
    [
        SelectorConfig("seer", 1024),
        SelectorConfig("seer", 1024, threshold=0.00001, sink=False, sparse_prefill=True),
        SelectorConfig("seer", 1024, mass=0.95, fraction=0.00001, sink=False),
        SelectorConfig("quest", 1024, fraction=0.125, head_shares={"2": [0.5, 1.0]}),
    ],
)
def test_reads_are_those_of_the_plan(layout: PlanConfig, selector: SelectorConfig) -> None:
    made = resolve_plan(selector, ["attention"] * 8, 64, layout)
    found = reads(made.id)
    assert found is not None
    budgets = [(None if spec.blocks is None else 64 * spec.blocks, spec.fraction) for spec in made.layers]
    counted: Counter[Any] = Counter()
    for kind in found:
        counted[kind.budget, kind.fraction] += kind.layers
    assert Counter(budgets) == counted


def test_layers_without_kv_do_not_count_and_windows_do() -> None:
    assert reads("12L:8linear+2none+2dense") == ((2, None, 0),)
    assert reads("12L:6sliding4096+6dense") == ((6, 4096, 0), (6, None, 0))
    made = resolve_plan(SelectorConfig("quest", 1024), ["sliding", "attention"], 64, window=512)
    assert reads(made.id) == ((1, 512, 0), (1, 1024, 0))
    assert reads("12L:6sliding+6dense") is None and reads("another's") is None


@pytest.mark.parametrize("budget", [None, 1, 7, 1000])
@pytest.mark.parametrize("prompt", [1, 7, 40])
@pytest.mark.parametrize("completion", [0, 1, 20])
def test_tokens_read(budget: int | None, prompt: int, completion: int) -> None:
    steps = [prompt + step for step in range(completion)]
    found = tokens_read(budget, np.array([prompt]), np.array([completion]))
    assert found.tolist() == [sum(min(n, budget or n) for n in steps)]
    if budget is not None:
        grown = tokens_read(budget, np.array([prompt]), np.array([completion]), 0.25)
        assert grown.tolist() == [round(sum(min(n, max(budget, n / 4)) for n in steps))]
