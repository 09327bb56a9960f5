"""Speculation with real gates: the small reasoner's chains are those of dense decoding, token for token."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from seer_ray.config.options import EngineConfig, GeneratorConfig, ModelConfig, SelectorConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.models.load import LoadedModel, load_model
from seer_ray.tasks.generators import generate_problems

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
}


@cache
def model() -> LoadedModel:
    return load_model(ModelConfig(name="reasoner", gates="reasoner", dtype="float32"))


def chains(problems: int, steps: int, selector: str, batch: int, way: str, **settings: Any) -> dict[str, Any]:
    engine = Engine(
        model(), EngineConfig(block_size=8, max_batch=batch, **settings), SelectorConfig(selector, budget=160)
    )
    end = (model().tokenizer.eos_token_id,)
    for problem in generate_problems(GeneratorConfig("program", steps), problems):
        chat = [{"role": "user", "content": problem.question}]
        prompt = model().tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        sampling = SamplingParams(15 * steps + 40, eos_token_ids=end, **WAYS[way])
        engine.submit(Request(problem.id, tuple(prompt), sampling, 3, problem.id))
    found = {done.request.id: (done.tokens, done.finish_reason, done.text) for done in engine.run()}
    if settings.get("speculate"):
        stats = engine.stats()
        assert stats["accepted"] > (0.5 if selector == "seer" else 0.1) * stats["drafted"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_chains_are_those_of_dense_decoding(way: str, long: bool) -> None:
    problems, steps = (500, 40) if long else (4, 10)
    expected = chains(problems, steps, "dense", 16, way)
    for selector, speculate, batch in (("seer", "4", 8), ("quest", "7", 16), ("window", "2", 5)):
        assert chains(problems, steps, selector, batch, way, speculate=speculate) == expected


@pytest.mark.slow
def test_exact_mode(long: bool) -> None:
    problems, steps = (100, 40) if long else (3, 8)
    expected = chains(problems, steps, "dense", 16, "drawn", exact=True)
    assert chains(problems, steps, "seer", 4, "drawn", exact=True, speculate="5") == expected
