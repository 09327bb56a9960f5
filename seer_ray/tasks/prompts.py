"""From dataset rows to chats, and from chats to prompt tokens."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks.problem import Problem

Message = dict[str, str]

QUESTIONS = ("question", "problem", "prompt")
"""Names that the column with the question goes by, in the order of trust."""

# In this order: the arguments of a LaTeX command, an escaped {{name}}, a {name}. Everything else is literal.
_BRACES = re.compile(
    r"(?P<latex>\\[A-Za-z]+(?:\{[^{}]*\})+)|\{\{(?P<escaped>[^{}\n]+)\}\}|\{(?P<name>[^{}\n]+)\}"
)


def column_value(row: Mapping[str, Any], column: str, option: str, where: str) -> Any:
    """The row's value in a column that an option names.

    Raises:
        ConfigError: There is no such column; names those there are.
    """
    if column not in row:
        raise ConfigError(
            f"{option}: no column '{column}' in {where}{did_you_mean(column, row)}; columns: {', '.join(row)}"
        )
    return row[column]


def fill(template: str, values: Mapping[str, Any], option: str, where: str) -> str:
    r"""The template with every ``{column}`` replaced by the row's value.

    ``{{name}}`` gives ``{name}``. Braces that follow a LaTeX command (``\boxed{answer}``) and braces around
    anything but a name (``{"a": 1}``) are literal, and values are never looked into.

    Raises:
        ConfigError: A name that is no column.
    """

    def replace(match: re.Match[str]) -> str:
        name = match["name"] or match["escaped"]
        if name is None or (name not in values and not name.isidentifier()):
            return match[0]
        if match["escaped"]:
            return f"{{{name}}}"
        return as_text(column_value(values, name, option, where))

    return _BRACES.sub(replace, template)


def check_template(template: str) -> None:
    """
    Raises:
        ConfigError: The template would make the same prompt of every row.
    """
    if not any(match["name"] for match in _BRACES.finditer(template)):
        raise ConfigError(f"task.prompt={template!r}: must name a column in braces, such as {{question}}")


def as_text(value: Any) -> str:
    """A dataset value as text: strings as they are, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    return (
        json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)
    )


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
        chat = _chat(column_value(row, columns.messages, option, where), where)
    else:
        chat = [{"role": "user", "content": _user(row, columns, task, where)}]
    own_system = [message for message in chat if message["role"] in ("system", "developer")]
    system = own_system if task.system is None else [{"role": "system", "content": task.system}]
    turns = [message for message in chat if message["role"] not in ("system", "developer")]
    return (*system, *_few_shot(task), *turns)


def _user(row: Mapping[str, Any], columns: ColumnsConfig, task: TaskConfig, where: str) -> str:
    values = dict(row)
    column = columns.question or next((name for name in QUESTIONS if name in row), QUESTIONS[0])
    if column in row:
        values["question"] = row[column]
    elif "{question}" in task.prompt:
        column_value(row, column, f"task.columns.question={column}", where)
    text = fill(task.prompt, values, f"task.prompt={task.prompt!r}", where)
    if "{question}" in task.prompt and values["question"] in (None, ""):
        raise ConfigError(f"task.columns.question={column}: empty in {where}")
    return text


def _few_shot(task: TaskConfig) -> list[Message]:
    """Examples as user and assistant turns, their questions put into the same template as the row's own."""
    turns: list[Message] = []
    for number, example in enumerate(task.few_shot):
        option = f"task.few_shot[{number}]"
        if not isinstance(example, Mapping):
            raise ConfigError(f"{option}={example!r}: must be {{question: ..., answer: ...}}")
        for key in ("question", "answer"):
            column_value(example, key, option, "the example")
        turns.append({"role": "user", "content": fill(task.prompt, example, option, "the example")})
        turns.append({"role": "assistant", "content": as_text(example["answer"])})
    return turns


def _chat(value: Any, where: str) -> list[Message]:
    """A chat column, checked: text only, the last message not the assistant's."""
    if isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ConfigError(f"{where}: the chat must be a list of {{role, content}}")
    chat = [_message(item, where) for item in value]
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


def render(problem: Problem, tokenizer: Any, task: TaskConfig) -> tuple[str, list[int]]:
    """Text and token ids of a problem's prompt, up to where the assistant's answer begins.

    By the tokenizer's chat template; without one, the messages' texts joined by blank lines, with the
    special tokens that the tokenizer itself puts around a text.

    Raises:
        ConfigError: The template refuses the chat, or has no thinking switch for ``task.thinking``.
    """
    template = tokenizer.chat_template
    # Named templates come as a dict; which one is taken is the tokenizer's choice.
    if task.thinking is not None and "enable_thinking" not in str(template):
        raise ConfigError(
            f"task.thinking={str(task.thinking).lower()}: this model's chat template has no thinking switch; "
            "leave it null"
        )
    if not template:
        text = "\n\n".join(message["content"] for message in problem.messages)
        return text, list(tokenizer(text)["input_ids"])
    switches = {} if task.thinking is None else {"enable_thinking": task.thinking}
    try:
        text = tokenizer.apply_chat_template(
            list(problem.messages), tokenize=False, add_generation_prompt=True, **switches
        )
    except Exception as error:  # Jinja errors, raised by the template itself for chats that it does not know.
        roles = ", ".join(message["role"] for message in problem.messages)
        raise ConfigError(
            f"problem '{problem.id}': the model's chat template refuses a chat of {roles}: {error}"
        ) from error
    # The template has written the special tokens; adding them again would double the first one.
    return text, list(tokenizer(text, add_special_tokens=False)["input_ids"])
