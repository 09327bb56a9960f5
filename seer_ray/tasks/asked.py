"""What a row asks for itself: the keys of a batch line's body, or of the column ``task.columns.sampling``.

The names are those of OpenAI's API, and of vLLM where that has more. Every key is honoured, or its row is
refused with the key's name. Null is as good as absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import MOST_LOGPROBS
from seer_ray.tasks.checked import (
    Parse,
    bias,
    flag,
    ids,
    mapping,
    number,
    one_of,
    text,
    texts,
    top_k,
    whole,
)
from seer_ray.tasks.structured import FORMS, Form
from seer_ray.tasks.values import kind, parsed

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
URLS = (CHAT, COMPLETIONS)
CONTENT = ("messages", "prompt")
"""Keys that are no settings."""
EXTRA = "extra_body"
"""Where vLLM's users have keys that OpenAI's client does not know; it puts them beside the others itself."""


@dataclass(frozen=True)
class Asked:
    """Settings of one row. What it does not say is as the options say."""

    body: Mapping[str, Any] = field(default_factory=dict)
    """As it was given, without what is asked."""
    url: str | None = None
    """Of a batch line."""
    model: str | None = None
    samples: int | None = None
    seed: int | None = None
    thinking_budget: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """By field of ``SamplingParams``; ``stop_token_ids`` and ``ignore_eos`` beside them."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """For the chat template."""
    form: Form | None = None

    @property
    def deciding(self) -> str | None:
        """What makes it another problem, as JSON; None: nothing does."""
        said = {key: value for key, value in self.body.items() if key != "model"}
        return json.dumps(said, sort_keys=True) if said else None

    @property
    def note(self) -> str | None:
        """For the results, as JSON; None: the row asks for nothing."""
        said = {**({"url": self.url} if self.url else {}), **self.body}
        return json.dumps(said, ensure_ascii=False) if said else None


USUAL = Asked()
"""Of the rows that ask for nothing."""
SAMPLING: dict[str, tuple[str, Parse]] = {
    "temperature": ("temperature", number(0)),
    "top_p": ("top_p", number(0, 1)),
    "top_k": ("top_k", top_k),
    "min_p": ("min_p", number(0, 1)),
    "repetition_penalty": ("repetition_penalty", number(0.01)),
    "presence_penalty": ("presence_penalty", number(-2, 2)),
    "frequency_penalty": ("frequency_penalty", number(-2, 2)),
    "logit_bias": ("logit_bias", bias),
    "max_tokens": ("max_new_tokens", whole(1)),
    "max_completion_tokens": ("max_new_tokens", whole(1)),
    "min_tokens": ("min_new_tokens", whole(0)),
    "stop": ("stop", texts),
    "stop_token_ids": ("stop_token_ids", ids),
    "ignore_eos": ("ignore_eos", flag),
}
"""Key -> field of ``SamplingParams``, and what it takes; of two keys for one the later one here counts."""
LOGPROBS = ("logprobs", "top_logprobs")
OTHERS: dict[str, tuple[str, Parse]] = {
    "model": ("model", text),
    "n": ("samples", whole(1)),
    "seed": ("seed", whole(-(2**63), 2**63 - 1)),
    "thinking_token_budget": ("thinking_budget", whole(0)),
}
TEMPLATE = TEMPLATE_VALUES, EFFORT = "chat_template_kwargs", "reasoning_effort"
ONLY: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "include_reasoning": (True,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
"""Keys of which one way alone is there, mostly their default."""
LABELS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "priority",
    "request_id",
)
"""Keys that say nothing about the completion."""
KEYS = (*SAMPLING, *LOGPROBS, *OTHERS, *FORMS, *TEMPLATE, *ONLY, "best_of", *LABELS)


def parse_settings(body: Mapping[str, Any], where: str, option: str, url: str | None = None) -> Asked:
    """A body, or a column's value.

    Args:
        body: The settings, and what is asked.
        where: Of the row.
        option: What comes before the key in errors: ``body``, or the option that names the column.
        url: Of a batch line.

    Raises:
        ConfigError: A key that cannot be honoured; names it, its value and what there is.
    """
    given = {key: value for key, value in body.items() if value is not None and key not in CONTENT}
    found: dict[str, Any] = {"sampling": {}, "template": {}}

    def take(key: str, parse: Parse) -> Any:
        try:
            return parse(given[key])
        except ValueError as error:
            said = json.dumps(given[key], ensure_ascii=False, default=str)
            said = said if len(said) <= 60 else said[:59] + "…"
            raise ConfigError(f"{option}.{key}={said}: must be {error}, in {where}") from error

    if EXTRA in given:
        given |= {key: value for key, value in take(EXTRA, mapping).items() if value is not None}
        del given[EXTRA]
    for key in given:
        if key not in KEYS:
            raise ConfigError(
                f"{option}.{key}: cannot be honoured{did_you_mean(key, KEYS)}, in {where}; take it out"
            )
    for key, (setting, parse) in SAMPLING.items():
        if key in given:
            found["sampling"][setting] = take(key, parse)
    for key, (setting, parse) in OTHERS.items():
        if key in given:
            found[setting] = take(key, parse)
    for key, ways in {**ONLY, "best_of": (found.get("samples", 1),)}.items():
        if key in given:
            take(key, one_of(ways))
    if any(key in given for key in LOGPROBS):
        found["sampling"]["logprobs"] = _logprobs(given, take)
    if TEMPLATE_VALUES in given:
        found["template"] |= take(TEMPLATE_VALUES, mapping)
    if EFFORT in given:
        found["template"][EFFORT] = take(EFFORT, text)
    for key in TEMPLATE:
        if key in given and url == COMPLETIONS:
            raise ConfigError(f"{option}.{key}: {url} has no chat template, in {where}; take it out")
    forms = [form for key in FORMS if key in given and (form := take(key, FORMS[key](key))) is not None]
    if len(forms) > 1:
        one, other = forms[0].key, forms[1].key
        raise ConfigError(f"{option}.{other}: there is {one} already, in {where}; take one out")
    kept = {key: value for key, value in given.items() if key not in LABELS}
    return Asked(body=kept, url=url, form=forms[0] if forms else None, **found)


def _logprobs(given: Mapping[str, Any], take: Callable[[str, Parse], Any]) -> int | None:
    """Of chats a flag and a number of their own; of completions one number."""
    several = whole(0, MOST_LOGPROBS)

    def wish(value: Any) -> int | None:
        return (top if value else None) if isinstance(value, bool) else several(value)

    top: int = take("top_logprobs", several) if "top_logprobs" in given else 0
    wanted: int | None = take("logprobs", wish) if "logprobs" in given else None
    if top and wanted is None:
        take("top_logprobs", one_of((0,)))
    return wanted


def column_settings(value: Any, option: str, where: str) -> Asked:
    """The value of ``task.columns.sampling``: a struct, or JSON text of one; null asks for nothing.

    Raises:
        ConfigError: As ``parse_settings``, and for what is no struct.
    """
    if value is None or value == "":
        return USUAL
    found = parsed(value)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{option}: must be a struct of settings, is {kind(value)} in {where}")
    return parse_settings(found, where, option)
