"""Conformance: of every supported model type, the engine's greedy tokens are those of ``model.generate``."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from engines import TinyModel, request, run, tokens
from families import FAMILY_NAMES, make_family
from tiny import tiny_tokenizer

from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine

PROMPTS = [tokens(count, seed=count) for count in (1, 15, 33, 100)]
NEW = 40


@cache
def model(family: str) -> TinyModel:
    made = make_family(family)
    return TinyModel(made, tiny_tokenizer(), made.config, family, torch.float32, torch.device("cpu"))


@cache
def generated(family: str) -> list[list[int]]:
    made: Any = make_family(family)
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        out = made.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        found.append(out[0, len(prompt) :].tolist())
    return found


def engine_of(family: str, selector: str = "dense", budget: int = 1024, **settings: Any) -> Engine:
    options = {"block_size": 16, "max_batch": 4, "prefill_chunk": 32} | settings
    return Engine(model(family), EngineConfig(**options), SelectorConfig(name=selector, budget=budget))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_greedy_is_generate(family: str) -> None:
    """In one batch of mixed lengths, prompts in chunks."""
    done = run(engine_of(family), [request(str(n), prompt, NEW) for n, prompt in enumerate(PROMPTS)])
    assert [done[str(n)].tokens for n in range(len(PROMPTS))] == generated(family)
