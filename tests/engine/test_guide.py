"""Structured output: whatever the model would say, its completion has the form."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from engines import TinyModel, eager, make_engine, request, run, tiny_model, tokens
from tiny import IM_END, IM_START, PAD

from seer_ray.config.options import EngineConfig
from seer_ray.engine import Completion, Engine
from seer_ray.engine.request import Structure


def schema(draw: random.Random, depth: int = 0) -> dict[str, Any]:
    """Of JSON that ends: strings, arrays and numbers of a greatest length."""
    kinds = ["string", "integer", "boolean", "null", "enum", "pattern"]
    kind = draw.choice(kinds if depth > 2 else [*kinds, "object", "object", "array", "anyOf"])
    if kind == "object":
        names = draw.sample(["a", "b c", "ü", "name", 'x"y', "0"], draw.randrange(1, 4))
        return {
            "type": "object",
            "properties": {name: schema(draw, depth + 1) for name in names},
            "required": draw.sample(names, draw.randrange(len(names) + 1)),
            "additionalProperties": False,
        }
    if kind == "array":
        least = draw.randrange(3)
        return {
            "type": "array",
            "items": schema(draw, depth + 1),
            "minItems": least,
            "maxItems": least + draw.randrange(3),
        }
    if kind == "anyOf":
        return {"anyOf": [schema(draw, depth + 1), schema(draw, depth + 1)]}
    if kind == "enum":
        return {"enum": draw.sample([1, "one", None, True, [1, 2], {"k": "v"}], 2)}
    if kind == "pattern":
        return {"type": "string", "pattern": draw.choice(["^[a-c]{2,4}$", "^(yes|no)$", "^\\d{1,3}$"])}
    limits = {"string": {"maxLength": 6}, "integer": {"minimum": draw.randrange(-99, 0), "maximum": 999}}
    return {"type": kind, **limits.get(kind, {})}


def test_random_schemas_give_valid_json() -> None:
    """Greedy and sampled, captured and not, all in one batch with rows that have no form."""
    schemas = {f"{n}/0": schema(random.Random(n)) for n in range(200)}
    asked = [
        request(
            id,
            tokens(6, seed=number % 5),
            400,
            temperature=float(number % 3),
            structure=Structure("json", json.dumps(of)),
            eos_token_ids=(IM_END,),
        )
        for number, (id, of) in enumerate(schemas.items())
    ]
    free = [request(f"free{n}/0", tokens(6), 20, temperature=1.0) for n in range(4)]
    done = run(make_engine(max_batch=16), [*asked[:100], *free[:2]])
    done |= run(eager(make_engine(max_batch=16)), [*asked[100:], *free[2:]])
    for id, of in schemas.items():
        assert (done[id].finish_reason, done[id].error) == ("stop", None), of
        jsonschema.validate(json.loads(done[id].text), of)
    for one in free:
        assert done[one.id].tokens == run(make_engine(), [one])[one.id].tokens


def said(kind: str, text: str, new: int = 60, **more: Any) -> Completion:
    thinking = {name: more.pop(name) for name in ("thinking", "begun") if name in more}
    made = request(
        "a/0", tokens(9), new, structure=Structure(kind, text, "response_format", **thinking), **more
    )
    return run(make_engine(), [made])["a/0"]


def test_choice_and_regex() -> None:
    assert said("choice", '["left (1)", "right"]').text in ("left (1)", "right")
    assert re.fullmatch("[0-9]{3}-x?", said("regex", "[0-9]{3}-x?", eos_token_ids=(IM_END,)).text)


def test_it_ends_without_an_end_token() -> None:
    done = said("regex", "abc(d|e)")
    assert done.finish_reason == "stop" and len(done.tokens) == 4
    assert said("json", '{"type": "string", "minLength": 50}', 5).finish_reason == "length"


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (
            "json",
            '{"type": "array", "uniqueItems": true}',
            'response_format: Unimplemented keys: ["uniqueItems"]',
        ),
        ("json", '{"type": "text"}', "response_format: Invalid type: text"),
        ("regex", "(", "response_format: "),
    ],
)
def test_a_form_that_cannot_be_kept_to_is_refused(kind: str, text: str, message: str) -> None:
    done = said(kind, text)
    assert (
        done.finish_reason == "error" and str(done.error).startswith(message) and "\n" not in str(done.error)
    )


def test_a_model_without_a_tokenizer_is_refused() -> None:
    known = tiny_model("qwen3")
    bare = TinyModel(known.model, None, known.hf_config, known.name, known.dtype, known.device)
    engine = Engine(bare, EngineConfig(block_size=16, max_batch=2))
    made = request("a/0", tokens(9), 5, structure=Structure("regex", "a", "guided_regex"))
    error = run(engine, [made])["a/0"].error
    assert (
        error
        == "guided_regex: needs a tokenizer of the tokenizers library (Only fast tokenizers are supported)"
    )


def test_thinking_is_free() -> None:
    """What the prompt has opened ends with its mark; what it has not, the model may open or leave."""
    marks = {"thinking": (IM_START, PAD)}
    opened = said("regex", "[ab]{2}", 40, **marks, begun=True, logit_bias=((PAD, 9.0),), temperature=2.0)
    assert PAD in opened.tokens
    at = opened.tokens.index(PAD)
    assert at > 0 and opened.text[-2:].strip("ab") == "" and len(opened.tokens) == at + 3
    eager_to = said(
        "regex", "[ab]{2}", 40, **marks, logit_bias=((IM_START, 40.0), (PAD, 39.0)), frequency_penalty=2.0
    )
    assert eager_to.tokens[0] == IM_START and PAD in eager_to.tokens
    shy = said("regex", "[ab]{2}", 40, **marks, logit_bias=((IM_START, -50.0),))
    assert len(shy.tokens) == 2 and shy.text.strip("ab") == ""
