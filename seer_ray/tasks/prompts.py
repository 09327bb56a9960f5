"""From dataset rows to chats, and from chats to prompt tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks import jinja
from seer_ray.tasks.clock import stopped
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.values import as_chat, as_text, column_value, has_column, parsed

Message = dict[str, str]

QUESTIONS = ("question", "problem", "prompt", "messages")
"""Names that the column with the question goes by, in the order of trust."""

JINJA = "jinja"
"""``task.template`` of prompts in Jinja."""

_END = "\u2063end of the last message\u2063"
"""Written by nobody."""

# In this order: the arguments of a LaTeX command, an escaped {{name}}, a {name}. Everything else is literal.
_BRACES = re.compile(
    r"(?P<latex>\\[A-Za-z]+(?:\{[^{}]*\})+)|\{\{(?P<escaped>[^{}\n]+)\}\}|\{(?P<name>[^{}\n]+)\}"
)


def fill(template: str, values: Mapping[str, Any], option: str, where: str) -> str:
    r"""The template with every ``{column}``, or ``{column.field}``, replaced by the row's value.

    ``{{name}}`` gives ``{name}``. Braces that follow a LaTeX command (``\boxed{answer}``) and braces around
    anything but a name (``{"a": 1}``) are literal, and values are never looked into.

    Raises:
        ConfigError: A name that is no column, or one of something that is no text.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match["name"] or match["escaped"]
        if name is None or (name not in values and not all(map(str.isidentifier, name.split(".")))):
            return match[0]
        if match["escaped"]:
            return f"{{{name}}}"
        return as_text(column_value(values, name, option, where), f"{option}: {name}", where)

    return _BRACES.sub(value_of, template)


def check_template(task: TaskConfig) -> None:
    """
    Raises:
        ConfigError: The template would make the same prompt of every row, or is not Jinja, if it should be.
    """
    if not names_in(task):
        named = "{{ question }}" if task.template == JINJA else "{question}"
        raise ConfigError(f"task.prompt={task.prompt!r}: must name a column in braces, such as {named}")


def names_in(task: TaskConfig) -> frozenset[str]:
    """Columns that the template of the prompt names.

    Raises:
        ConfigError: It is not Jinja, if it should be.
    """
    return _names_in(task.template, task.prompt)


@lru_cache(maxsize=16)
def _names_in(template: str, prompt: str) -> frozenset[str]:
    if template == JINJA:
        return frozenset(jinja.names(prompt, "task.prompt"))
    return frozenset(match["name"] for match in _BRACES.finditer(prompt) if match["name"])


def filled(task: TaskConfig, values: Mapping[str, Any], where: str, option: str = "task.prompt") -> str:
    """The prompt with a row's values in it.

    Raises:
        ConfigError: A name that is no column, or one of something that is no text.
    """
    if task.template == JINJA:
        return jinja.fill(task.prompt, values, option, where)
    return fill(task.prompt, values, option, where)


def build_messages(
    row: Mapping[str, Any], columns: ColumnsConfig, task: TaskConfig, where: str
) -> tuple[Message, ...]:
    """The whole chat of one row: system, few-shot turns, user.

    A row that has a chat of its own keeps it; ``task.system`` takes the place of its system message.

    Raises:
        ConfigError: Missing column, bad chat, bad few-shot example.
    """
    if columns.messages is not None:
        option = f"task.columns.messages={columns.messages}"
        chat = _chat(column_value(row, columns.messages, option, where), option, where)
    else:
        chat = _asked(row, columns, task, where)
    own_system = [message for message in chat if message["role"] in ("system", "developer")]
    system = own_system if task.system is None else [{"role": "system", "content": task.system}]
    turns = [message for message in chat if message["role"] not in ("system", "developer")]
    return (*system, *_few_shot(task), *turns)


def _asked(row: Mapping[str, Any], columns: ColumnsConfig, task: TaskConfig, where: str) -> list[Message]:
    """The user's message, or the chat that stands where its text would."""
    values = dict(row)
    column = columns.question or next((name for name in QUESTIONS if name in row), QUESTIONS[0])
    named, option = "question" in names_in(task), f"task.columns.question={column}"
    if named or has_column(row, column):
        values["question"] = column_value(row, column, option, where)
    if named and values["question"] in (None, ""):
        raise ConfigError(f"{option}: empty in {where}")
    only = None if task.template == JINJA else _BRACES.fullmatch(task.prompt.strip())
    if only and only["name"] and has_column(values, only["name"]):
        option = option if named else f"task.prompt={task.prompt}"
        value = column_value(values, only["name"], option, where)
        if as_chat(value):
            return _chat(value, option, where)
        return [{"role": "user", "content": task.prompt.replace(only[0], as_text(value, option, where))}]
    if named and as_chat(values["question"]):
        raise ConfigError(f"task.prompt={task.prompt!r}: {column} is a whole chat in {where}; leave it out")
    option = f"task.prompt={task.prompt!r}"
    return [{"role": "user", "content": filled(task, values, where, option)}]


def _few_shot(task: TaskConfig) -> list[Message]:
    """Examples as user and assistant turns, their questions put into the same template as the row's own."""
    turns: list[Message] = []
    for number, example in enumerate(task.few_shot):
        option = f"task.few_shot[{number}]"
        if not isinstance(example, Mapping):
            raise ConfigError(f"{option}={example!r}: must be {{question: ..., answer: ...}}")
        for key in ("question", "answer"):
            column_value(example, key, option, "the example")
        turns.append({"role": "user", "content": filled(task, example, "the example", option)})
        turns.append({"role": "assistant", "content": as_text(example["answer"], option, "the example")})
    return turns


def _chat(value: Any, option: str, where: str) -> list[Message]:
    """A chat, as a list or as JSON text of one, checked: text only, the last message not the assistant's."""
    items = parsed(value)
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise ConfigError(f"{option}: the chat must be a list of {{role, content}} in {where}")
    chat = [_message(item, where) for item in items]
    if chat[-1]["role"] == "assistant":
        raise ConfigError(f"{where}: the chat ends with the assistant's message; the last must be the user's")
    return chat


def _message(item: Any, where: str) -> Message:
    content = item.get("content") if isinstance(item, Mapping) else None
    if isinstance(content, Sequence) and not isinstance(content, str):
        # OpenAI's content parts; text is all that a language model can read.
        parts = [
            part["text"]
            for part in content
            if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        ]
        content = "".join(parts) if len(parts) == len(content) > 0 else None
    if not isinstance(content, str) or not isinstance(item.get("role"), str):
        raise ConfigError(f"{where}: every message of the chat must have a role and a text as content")
    return {"role": item["role"], "content": content}


def raw_prompt(value: Any, where: str) -> str | tuple[int, ...]:
    """The prompt of a line of ``/v1/completions``: text, token ids, or a list of one of them.

    Raises:
        ConfigError: It is something else, or several.
    """
    found = value
    if isinstance(found, list) and found and not isinstance(found[0], int):
        if len(found) > 1:
            raise ConfigError(f"body.prompt: {len(found)} prompts in {where}; give each a line of its own")
        (found,) = found
    if isinstance(found, str) and found:
        return found
    if isinstance(found, list) and found and all(type(id) is int and id >= 0 for id in found):
        return tuple(found)
    raise ConfigError(f"body.prompt: must be text or token ids in {where}")


def render(
    problem: Problem, tokenizer: Any, task: TaskConfig, clock: datetime | None = None
) -> tuple[str, list[int]]:
    """Text and token ids of a problem's prompt, up to where the assistant's answer begins.

    By the tokenizer's chat template; without one, the messages' texts joined by blank lines, with the
    special tokens that the tokenizer itself puts around a text.

    Args:
        problem: Its chat is rendered.
        tokenizer: With its chat template.
        task: Its switches.
        clock: What a template that writes the date reads; None: the time of this call.

    Raises:
        ConfigError: The template refuses the chat, or has no thinking switch for ``task.thinking``.
    """
    if problem.raw is not None and not isinstance(problem.raw, str):
        return tokenizer.decode(problem.raw), list(problem.raw)
    text = rendered(problem, tokenizer, task, clock)
    return text, list(tokenizer(text, add_special_tokens=adds_special(problem, tokenizer))["input_ids"])


def adds_special(problem: Problem, tokenizer: Any) -> bool:
    """Whether the tokenizer puts its special tokens around a prompt: adding them to what a template has
    written would double the first one."""
    return problem.raw is not None or not tokenizer.chat_template


def rendered(problem: Problem, tokenizer: Any, task: TaskConfig, clock: datetime | None = None) -> str:
    """The text of ``render``; raises what that does."""
    if isinstance(problem.raw, str):
        return problem.raw
    # Named templates come as a dict; which one is taken is the tokenizer's choice.
    for name in problem.asked.template:
        if name not in str(tokenizer.chat_template):
            raise ConfigError(
                f"problem '{problem.id}': {name}: this model's chat template does not know it; take it out"
            )
    if task.thinking is not None and "enable_thinking" not in str(tokenizer.chat_template):
        raise ConfigError(
            f"task.thinking={str(task.thinking).lower()}: this model's chat template has no thinking switch; "
            "leave it null"
        )
    if not tokenizer.chat_template:
        return "\n\n".join(message["content"] for message in problem.messages)
    return _templated(problem, tokenizer, task, clock, True)


def opening(problem: Problem, tokenizer: Any, task: TaskConfig, text: str, clock: datetime | None) -> str:
    """The end of a rendered prompt that the chat template puts behind the chat, such as ``<think>``.

    Without a template, what ``task.prompt`` has behind its last column.

    Args:
        problem, tokenizer, task, clock: As for ``render``.
        text: What ``render`` gave.
    """
    if problem.raw is not None:
        return ""
    if not tokenizer.chat_template:
        end = task.prompt.rpartition("}")[2]
        return end if text.endswith(end) else ""
    chat = _templated(problem, tokenizer, task, clock, False)
    if text.startswith(chat) and text != chat:
        return text[len(chat) :]
    # A template that does not know the difference: what follows the last message.
    last = dict(problem.messages[-1])
    last["content"] += _END
    marked = replace(problem, messages=(*problem.messages[:-1], last))
    return _templated(marked, tokenizer, task, clock, True).rpartition(_END)[2]


def _templated(
    problem: Problem, tokenizer: Any, task: TaskConfig, clock: datetime | None, generation_prompt: bool
) -> str:
    given: dict[str, Any] = {} if task.thinking is None else {"enable_thinking": task.thinking}
    given |= problem.asked.template
    if clock is not None and "strftime_now" in str(tokenizer.chat_template):
        given["chat_template"] = stopped(tokenizer.get_chat_template(), clock)
    try:
        text = tokenizer.apply_chat_template(
            list(problem.messages), tokenize=False, add_generation_prompt=generation_prompt, **given
        )
    except Exception as error:  # Jinja errors, raised by the template itself for chats that it does not know.
        roles = ", ".join(message["role"] for message in problem.messages)
        raise ConfigError(
            f"problem '{problem.id}': the model's chat template refuses a chat of {roles}: {one_line(error)}"
        ) from error
    assert isinstance(text, str)
    return text
