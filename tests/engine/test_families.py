"""Conformance: of every supported model type, the engine's greedy tokens are those of ``model.generate``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from engines import TinyModel, eager, request, run, tokens
from families import FAMILY_NAMES, KINDS, make_family
from tiny import tiny_tokenizer

from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine, Request
from seer_ray.engine import eager as eager_steps
from seer_ray.engine.request import Progress
from seer_ray.engine.sequence import Sequence
from seer_ray.models.plan import SELECTING

PROMPTS = [tokens(count, seed=count) for count in (1, 33, 100)]
NEW = 32


@cache
def model(family: str) -> TinyModel:
    made = make_family(family)
    return TinyModel(made, tiny_tokenizer(), made.config, family, torch.float32, torch.device("cpu"))


class Expected(NamedTuple):
    """What transformers makes of the prompts."""

    tokens: list[list[int]]
    logits: torch.Tensor
    """``[prompts, NEW, vocabulary]``"""


@cache
def expected(family: str) -> Expected:
    made: Any = make_family(family)
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        found.append(
            made.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
        )
    return Expected(
        [out.sequences[0, len(prompt) :].tolist() for out, prompt in zip(found, PROMPTS, strict=True)],
        torch.stack([torch.cat(out.logits) for out in found]),
    )


def generated(family: str) -> list[list[int]]:
    return expected(family).tokens


def engine_of(family: str, selector: str = "dense", budget: int = 1024, **settings: Any) -> Engine:
    options = {"block_size": 16, "max_batch": 4, "prefill_chunk": 32} | settings
    return Engine(model(family), EngineConfig(**options), SelectorConfig(name=selector, budget=budget))


def greedy() -> list[Request]:
    return [request(str(n), prompt, NEW) for n, prompt in enumerate(PROMPTS)]


def found(engine: Engine) -> list[list[int]]:
    done = run(engine, greedy())
    return [done[str(n)].tokens for n in range(len(PROMPTS))]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_greedy_is_generate(family: str) -> None:
    """In one batch of mixed lengths, prompts in chunks."""
    assert found(engine_of(family)) == generated(family)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_logits_are_those_of_transformers(
    family: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Up to rounding in float32, which the choice of experts magnifies."""
    seen = torch.zeros_like(expected(family).logits)

    def spy(rows: torch.Tensor, sequences: list[Sequence]) -> list[int]:
        for row, sequence in zip(rows, sequences, strict=True):
            seen[int(sequence.request.id), sequence.generated] = row
        return sample(rows, sequences)

    sample = eager_steps.sample
    monkeypatch.setattr(eager_steps, "sample", spy)
    assert found(eager(engine_of(family, prefill_chunk=16))) == generated(family)
    logits = expected(family).logits
    difference = float((seen - logits).abs().max())
    record_property("conformance", f"{family:18} {difference:.1e} of {float(logits.std()):5.1f}")
    assert difference < 1e-3 * float(logits.abs().max())


@pytest.mark.parametrize("family", KINDS)
def test_greedy_is_generate_in_exact_mode(family: str) -> None:
    assert found(engine_of(family, exact=True)) == generated(family)


@pytest.mark.parametrize("selector", ["seer", "quest", "oracle"])
@pytest.mark.parametrize("family", KINDS)
def test_a_budget_of_the_whole_length_is_dense(family: str, selector: str) -> None:
    assert found(engine_of(family, selector)) == generated(family)


@pytest.mark.parametrize("family", KINDS)
def test_a_budget_is_kept_in_the_layers_that_select(family: str) -> None:
    engine = engine_of(family, "quest", budget=32)
    done = run(engine, [request("a", tokens(100), 20)])
    layers = done["a"].counters.attended_layers
    kept = {**dict.fromkeys(SELECTING, 20 * 2 * 32), "sliding": 20 * 2 * 40}
    for spec, read in zip(engine.plan.layers, layers, strict=True):
        assert read <= kept.get(spec.mixer, 0)
        assert (read > 0) == (spec.mixer in kept)


@pytest.mark.parametrize(
    "exact", [pytest.param(False, id="fast", marks=pytest.mark.long), pytest.param(True, id="exact")]
)
@pytest.mark.parametrize("family", ["qwen3_next", "falcon_h1", "lfm2", "gpt_oss", "seer_mixed"])
def test_how_a_chain_is_run_does_not_matter(family: str, exact: bool) -> None:
    """Samples of one prompt, more than there are rows; with preemptions; continued from its first tokens."""
    chains = [
        request(f"{n}/{sample}", tokens(30 + 17 * n, seed=n), 24, temperature=1.0)
        for n in range(2)
        for sample in range(3)
    ]
    alone = {c.id: run(engine_of(family, exact=exact), [c])[c.id].tokens for c in chains}
    together = run(engine_of(family, exact=exact, max_batch=3), chains)
    assert {id: done.tokens for id, done in together.items()} == alone

    engine = engine_of(family, exact=exact)
    sizes, counts = engine.runner.capacity.page_bytes, engine.runner.capacity.pages
    for pool in engine.scheduler.pools:  # as in a small cache
        pool._free = pool._free[-(6 if pool.keeps.reach is None else 9) :]
        pool.capacity = len(pool._free)
        pool._owners = [0] * (max(pool._free) + 1)
    tight = run(engine, chains)
    assert {id: done.tokens for id, done in tight.items()} == alone
    assert engine.stats()["preemptions"] > 0, (sizes, counts)

    begun = [replace(c, progress=Progress(tuple(alone[c.id][: 7 * index]))) for index, c in enumerate(chains)]
    continued = run(engine_of(family, exact=exact), begun)
    assert {id: done.tokens for id, done in continued.items()} == alone
