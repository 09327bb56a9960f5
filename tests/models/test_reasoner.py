"""The small reasoner that comes with the package, and its gates: what they are there for, they do."""

from __future__ import annotations

from functools import cache

import pytest

from seer_ray.config.options import EngineConfig, GeneratorConfig, ModelConfig, SelectorConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.models.load import LoadedModel, load_model
from seer_ray.models.source import ASSETS
from seer_ray.tasks.extraction import final_text
from seer_ray.tasks.generators import generate_problems

STEPS, PROBLEMS = 40, 6
"""Questions of about 270 tokens and chains of 560."""
BUDGET = 160
"""Of up to 830 tokens."""


@cache
def model() -> LoadedModel:
    return load_model(ModelConfig(name="reasoner", gates="reasoner"))


def right(selector: SelectorConfig) -> int:
    """Problems answered, greedily."""
    problems = generate_problems(GeneratorConfig("program", STEPS), PROBLEMS)
    engine = Engine(model(), EngineConfig(block_size=8, max_batch=PROBLEMS), selector)
    end = (model().tokenizer.eos_token_id,)
    for problem in problems:
        chat = [{"role": "user", "content": problem.question}]
        prompt = model().tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        sampling = SamplingParams(15 * STEPS + 40, temperature=0.0, eos_token_ids=end)
        engine.submit(Request(problem.id, tuple(prompt), sampling))
    said = {completion.request.id: final_text(completion.text) for completion in engine.run()}
    return sum(said[problem.id] == problem.answer for problem in problems)


@pytest.mark.parametrize("name", ["dense", "seer", "oracle"])
def test_it_answers(name):
    assert right(SelectorConfig(name, budget=BUDGET)) >= PROBLEMS - 1


def test_a_window_does_not_reach_far_enough():
    assert right(SelectorConfig("window", budget=BUDGET)) <= 1


def test_it_says_what_it_is_and_how_it_was_made():
    folder = ASSETS / "reasoner"
    card = (folder / "README.md").read_text()
    assert "seer-ray pretrain" in card and "It knows no language and no facts" in card
    gates = (folder / "gates" / "README.md").read_text()
    assert "seer-ray distill" in gates and "Attention gates for reasoner" in gates
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 9_000_000
