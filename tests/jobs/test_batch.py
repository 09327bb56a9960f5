"""A batch file as the API's documentation has it, from its lines to their answers, with a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jobs.conftest import MakeConfig
from tiny import IM_END

from seer_ray.config.options import EngineConfig, ModelConfig
from seer_ray.engine import Completion, Engine, Request, SamplingParams
from seer_ray.engine.request import Structure
from seer_ray.jobs import run as run_job
from seer_ray.models.load import load_model
from seer_ray.results.export import openai_batch
from seer_ray.results.folder import RunFolder

pytestmark = pytest.mark.usefixtures("local_ray")

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "maximum": 99, "minimum": 0},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}
JSON = Structure("json", json.dumps(SCHEMA))
SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 7}, {"max_new_tokens": 7}),
    ({"max_completion_tokens": 9, "temperature": 1.2}, {"max_new_tokens": 9, "temperature": 1.2}),
    ({"temperature": 1, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
    ({"temperature": 1, "top_k": 4}, {"temperature": 1.0, "top_k": 4}),
    ({"temperature": 1, "min_p": 0.2}, {"temperature": 1.0, "min_p": 0.2}),
    ({"temperature": 1, "seed": 11}, {"temperature": 1.0, "seed": 11}),
    ({"temperature": 1, "n": 3}, {"temperature": 1.0, "samples": 3}),
    ({"stop": ["e", "a", "t"]}, {"stop": ("e", "a", "t")}),
    ({"presence_penalty": 1.5}, {"presence_penalty": 1.5}),
    ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
    ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
    ({"logit_bias": {"40": 8, "41": -100}}, {"logit_bias": ((40, 8.0), (41, -100.0))}),
    (
        {"ignore_eos": True, "logit_bias": {str(IM_END): 9}},
        {"logit_bias": ((IM_END, 9.0),), "eos_token_ids": ()},
    ),
    (
        {"min_tokens": 5, "logit_bias": {str(IM_END): 90}},
        {"logit_bias": ((IM_END, 90.0),), "min_new_tokens": 5},
    ),
    ({"stop_token_ids": list(range(97, 123))}, {"eos_token_ids": (IM_END, *range(97, 123))}),
    ({"response_format": FORMAT, "max_tokens": 60}, {"structure": JSON, "max_new_tokens": 60}),
    ({"guided_choice": ["yes", "no"]}, {"structure": Structure("choice", '["yes", "no"]')}),
    ({"guided_regex": "[0-9]{4}"}, {"structure": Structure("regex", "[0-9]{4}")}),
]
"""Keys of a body, and what they are to the engine."""


def lines(model: str) -> list[dict[str, Any]]:
    """40: each setting as a chat and as a completion, two with log-probabilities, two that are refused."""
    made: list[dict[str, Any]] = []
    for url in (CHAT, COMPLETIONS):
        several: list[dict[str, Any]] = [body for body, _ in SETTINGS]
        several.append({"logprobs": True, "top_logprobs": 2} if url == CHAT else {"logprobs": 2})
        several.append({"tools": [{}]} if url == CHAT else {"model": "gpt-4o"})
        for number, body in enumerate(several):
            content: dict[str, Any] = {"prompt": f"Say {number}:"}
            if url == CHAT:
                content = {"messages": [{"role": "user", "content": f"Say {number}"}]}
            made.append(
                {
                    "custom_id": f"request-{len(made)}",
                    "method": "POST",
                    "url": url,
                    "body": {"model": model, **content, **body},
                }
            )
    return made


def alone(engine: Engine, line: dict[str, Any], settings: dict[str, Any]) -> list[Completion]:
    """What the engine itself says to a line, a sample at a time."""
    settings = {"max_new_tokens": 16, "eos_token_ids": (IM_END,), **settings}
    samples, seed = settings.pop("samples", 1), settings.pop("seed", 0)
    tokenizer, body = engine.tokenizer, line["body"]
    prompt = (
        tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        if "messages" in body
        else tokenizer(body["prompt"])["input_ids"]
    )
    found = []
    for sample in range(samples):
        engine.submit(
            Request(f"x/{sample}", tuple(prompt), SamplingParams(**settings), seed, line["custom_id"], sample)
        )
        found += list(engine.run())
    return found


def test_a_batch_file_is_answered_line_by_line(letters: MakeConfig, model: Path, tmp_path: Path) -> None:
    batch, answers = tmp_path / "batch.jsonl", tmp_path / "answers.jsonl"
    batch.write_text("\n".join(map(json.dumps, lines(model.name))))
    config = letters(tokens=16)
    config.model.name, config.task.data, config.task.grader = str(model), str(batch), "none"
    config.samples, config.engine.exact = 1, True
    config.engine.block_size, config.engine.max_batch = 16, 16
    summary = run_job.main(config)
    assert (summary.rows, summary.errors) == (44, 2)
    assert summary.next_commands[-1].startswith("seer-ray export ")
    assert openai_batch(RunFolder.view(f"{config.results.folder}/job"), str(answers)) == 40
    found = {line["custom_id"]: line for line in map(json.loads, answers.read_text().splitlines())}
    asked = lines(model.name)
    assert found.keys() == {line["custom_id"] for line in asked}
    refused = {id: line["error"]["message"] for id, line in found.items() if line["error"] is not None}
    assert refused == {
        "request-19": f"body.tools=[{{}}]: must be [], in {batch}:20",
        "request-39": (
            f"{batch}:40: problem 'request-39': model=gpt-4o: this run's model is {model}; name that, or none"
        ),
    }
    settings = [how for _, how in SETTINGS]
    engine = Engine(
        load_model(ModelConfig(name=str(model))), EngineConfig(block_size=16, max_batch=1, exact=True)
    )
    for line, how in zip([*asked[:19], *asked[20:39]], [*settings, {"logprobs": 2}] * 2, strict=True):
        check(found[line["custom_id"]]["response"], line, alone(engine, line, how))


def check(response: dict[str, Any], line: dict[str, Any], expected: list[Completion]) -> None:
    body, chat = response["body"], line["url"] == CHAT
    assert response["status_code"] == 200 and body["object"] == (
        "chat.completion" if chat else "text_completion"
    )
    assert [choice["index"] for choice in body["choices"]] == list(range(len(expected)))
    tokens, prompt = sum(len(one.tokens) for one in expected), len(expected[0].request.prompt)
    counts = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    assert counts.items() <= body["usage"].items()
    for choice, one in zip(body["choices"], expected, strict=True):
        text = choice["message"]["content"] if chat else choice["text"]
        assert (text, choice["finish_reason"]) == (one.text, one.finish_reason), line
        assert (choice["logprobs"] is None) == (not one.logprobs)
    if "response_format" in line["body"]:
        jsonschema.validate(json.loads(text), SCHEMA)
    if expected[0].logprobs:
        said = body["choices"][0]["logprobs"]
        if chat:
            assert len(said["content"]) == tokens and len(said["content"][0]["top_logprobs"]) == 2
            first = said["content"][0]
            assert first["bytes"] == list(first["token"].encode()) and first["logprob"] < 0
        else:
            assert all(said["token_logprobs"]) and said["text_offset"][0] == 0
            assert len(said["token_logprobs"]) == len(said["top_logprobs"]) == tokens
