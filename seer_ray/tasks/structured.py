"""Forms that an answer may be asked to have: structured output, as OpenAI's API and vLLM spell it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from seer_ray.tasks.checked import Parse, mapping, text
from seer_ray.tasks.values import parsed


@dataclass(frozen=True)
class Form:
    """What a completion must look like."""

    key: str
    """That asked for it."""
    kind: str
    """``json`` (a schema), ``regex`` or ``choice`` (a JSON list)."""
    text: str


def _json_form(key: str, schema: Any) -> Form:
    found = parsed(schema)
    if not isinstance(found, (Mapping, bool)):
        raise ValueError("a JSON schema")
    return Form(key, "json", json.dumps(found))


def _choice_form(key: str, choices: Any) -> Form:
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str) and c for c in choices):
        raise ValueError("a list of texts")
    return Form(key, "choice", json.dumps(choices))


def _response_format(key: str) -> Parse:
    def parse(value: Any) -> Form | None:
        type = value.get("type") if isinstance(value, Mapping) else None
        if type == "text":
            return None
        if type == "json_object":
            return Form(key, "json", '{"type": "object"}')
        if type == "json_schema":
            holder = value.get("json_schema")
            if not isinstance(holder, Mapping) or holder.get("schema") is None:
                raise ValueError("{type: json_schema, json_schema: {schema: ...}}")
            return _json_form(key, holder["schema"])
        raise ValueError("of type text, json_object or json_schema")

    return parse


def _structured_outputs(key: str) -> Parse:
    def parse(value: Any) -> Form | None:
        given = {name: of for name, of in mapping(value).items() if of not in (None, False)}
        makers: dict[str, Callable[[str, Any], Form]] = {
            "json": _json_form,
            "regex": lambda key, of: Form(key, "regex", text(of)),
            "choice": _choice_form,
            "json_object": lambda key, _: Form(key, "json", '{"type": "object"}'),
        }
        if len(given) != 1 or not given.keys() <= makers.keys():
            raise ValueError("one of json, regex, choice, json_object")
        ((name, of),) = given.items()
        return makers[name](f"{key}.{name}", of)

    return parse


FORMS: dict[str, Callable[[str], Parse]] = {
    "response_format": _response_format,
    "structured_outputs": _structured_outputs,
    "guided_json": lambda key: lambda value: _json_form(key, value),
    "guided_regex": lambda key: lambda value: Form(key, "regex", text(value)),
    "guided_choice": lambda key: lambda value: _choice_form(key, value),
}
