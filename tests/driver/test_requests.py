"""From problems with settings of their own to requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import IM_END, make_tiny, save_tiny, tiny_tokenizer
from tokenizers import AddedToken

from seer_ray.config.options import ColumnsConfig, ModelConfig, RunConfig, SamplingConfig, TaskConfig
from seer_ray.driver.requests import Renderer, RequestMaker
from seer_ray.engine import Request, Structure
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.thinking import ReasoningParser

THINK = ("<think>", "</think>")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That thinks between two tokens, unless it is told not to."""
    folder = tmp_path_factory.mktemp("model")
    make_tiny("qwen3", vocab_size=262).save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in THINK])
    tokenizer.save_pretrained(folder)
    return folder


def config_of(folder: Path, model: Path, rows: list[dict[str, Any]]) -> RunConfig:
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return RunConfig(
        seed=5,
        samples=2,
        model=ModelConfig(name=str(model)),
        task=TaskConfig(data=str(folder / "data.jsonl"), columns=ColumnsConfig(answer=None, sampling="how")),
        sampling=SamplingConfig(max_new_tokens=9, stop=["x"]),
    )


def requests_of(config: RunConfig) -> dict[str, list[Request]]:
    """By problem."""
    renderer = Renderer(config)
    tokenizer = renderer.tokenizer
    thinking = ThinkingRules(config, ReasoningParser(tokenizer, config.task.thinking_marks), tokenizer)
    maker = RequestMaker(config, renderer, thinking)
    found: dict[str, list[Request]] = {}
    for place, problem in enumerate(load_problems(config.task)):
        samples = range(problem.samples(config.samples))
        found[problem.id] = [maker.make(place, renderer.render(problem), sample) for sample in samples]
    return found


def test_settings_of_a_row_come_before_the_options(tmp_path: Path, model: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "a?", "how": None},
        {"question": "b?", "how": {"n": 3, "seed": -1, "temperature": 0.5, "max_tokens": 4}},
        {"question": "c?", "how": {"stop": "y", "stop_token_ids": [7], "ignore_eos": True}},
        {"question": "d?", "how": {"stop_token_ids": [7]}},
    ]
    usual, b, c, d = requests_of(config_of(tmp_path, model, rows)).values()
    assert [(one.sample, one.seed, one.sampling.max_new_tokens) for one in usual] == [(0, 5, 9), (1, 5, 9)]
    assert [(one.sample, one.seed, one.sampling.max_new_tokens) for one in b] == [
        (n, -1, 4) for n in range(3)
    ]
    assert (b[0].sampling.temperature, b[0].sampling.stop) == (0.5, ("x",))
    assert (c[0].sampling.stop, c[0].sampling.eos_token_ids) == (("y",), (7,))
    assert usual[0].sampling.eos_token_ids == (IM_END,) and d[0].sampling.eos_token_ids == (IM_END, 7)


def test_a_form_begins_behind_the_reasoning(tmp_path: Path, model: Path) -> None:
    """Unless the prompt has closed it, or there is no chat."""
    form = {"guided_regex": "a+"}
    rows = [
        {"question": "a?", "how": form},
        {"question": "b?", "how": form | {"chat_template_kwargs": {"enable_thinking": False}}},
    ]
    a, b = requests_of(config_of(tmp_path, model, rows)).values()
    marks = tuple(tiny_tokenizer().convert_tokens_to_ids(list(THINK)))
    assert a[0].sampling.structure == Structure("regex", "a+", "guided_regex", (260, 261), False)
    assert b[0].sampling.structure == Structure("regex", "a+", "guided_regex")
    assert marks != (260, 261)  # of the model alone
    batch = config_of(tmp_path, model, [])
    batch.task.columns.sampling = None
    lines = [
        {"custom_id": id, "url": "/v1/completions", "body": {"prompt": prompt, **form}}
        for id, prompt in (("raw", "a"), ("open", "a<think>\n"))
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    raw, opened = requests_of(batch).values()
    assert raw[0].sampling.structure == Structure("regex", "a+", "guided_regex")
    assert opened[0].sampling.structure == Structure("regex", "a+", "guided_regex", (260, 261), True)


def test_a_budget_of_thinking_of_a_row(tmp_path: Path, model: Path) -> None:
    rows = [
        {"question": "a?", "how": None},
        {"question": "b?", "how": {"thinking_token_budget": 0}},
    ]
    config = config_of(tmp_path, model, rows)
    usual, b = requests_of(config).values()
    assert usual[0].sampling.thinking is None
    assert b[0].sampling.thinking is not None and b[0].sampling.thinking.budget == 0
    config.sampling.thinking_budget = 7
    usual, b = requests_of(config).values()
    assert usual[0].sampling.thinking is not None and usual[0].sampling.thinking.budget == 7
    assert b[0].sampling.thinking is not None and b[0].sampling.thinking.budget == 0


def test_a_budget_of_thinking_for_a_model_without_marks(tmp_path: Path) -> None:
    """Is a row that cannot be asked."""
    plain, tokenizer = save_tiny(tmp_path / "plain", "qwen3"), tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(plain)
    rows = [{"question": "a?", "how": None}, {"question": "b?", "how": {"thinking_token_budget": 5}}]
    config = config_of(tmp_path, plain, rows)
    renderer, problems = Renderer(config), load_problems(config.task)
    renderer.check(problems)
    good, refused = map(renderer.render, problems)
    assert good.error is None
    assert "thinking_token_budget=5: the marks that this model puts around its thinking" in str(refused.error)


def test_settings_make_another_dataset_and_names_do_not(tmp_path: Path, model: Path) -> None:
    found = []
    for how in (None, {}, {"model": "m", "user": "me"}, {"n": 2}, {"n": 3}):
        config = config_of(tmp_path, model, [{"question": "a?", "how": how}])
        found.append(load_problems(config.task).survey.digest)
    assert found[0] == found[1] == found[2] and len(set(found)) == 3
