"""Where the document stands in a prompt (``task.document``): in the chat, in its text, in the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import TaskConfig
from seer_ray.tasks.values import as_text, column_value

if TYPE_CHECKING:
    from seer_ray.tasks.problem import Problem

BEGIN, END = "\u2063the document\u2063", "\u2063end of the document\u2063"
"""Written by nobody. No white space, so that templates that strip it leave them alone."""

Messages = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Document:
    """A part of one message."""

    message: int
    start: int
    """Of its text, in characters."""
    end: int


def find_document(
    row: Mapping[str, Any],
    task: TaskConfig,
    column: str,
    messages: Messages,
    build: Callable[[Mapping[str, Any]], Messages],
    where: str,
) -> Document:
    """The place of a row's document in its chat.

    Where the template puts the column, it is found by its place: ``build`` is asked again, with marks around
    the value. A chat of the row's own, or a question that has the document in it, is searched.

    Args:
        row: Of the dataset.
        task: For errors.
        column: With the document.
        messages: What ``build`` makes of the row.
        build: A row's chat.
        where: Of the row.

    Raises:
        ConfigError: No such column, or the prompt has its text never, or more than once.
    """
    option = f"task.document={column}"
    text = as_text(column_value(row, column, option, where), option, where)
    if not text:
        raise ConfigError(f"{option}: empty in {where}")
    places = _marked(messages, build, {**row, column: f"{BEGIN}{text}{END}"}) or _found(messages, text)
    if not places:
        raise ConfigError(
            f"{option}: its text is not in the prompt of {where}; name the column that the prompt has, or "
            f"put {{{column}}} into task.prompt={task.prompt!r}"
        )
    if len(places) > 1:
        raise ConfigError(
            f"{option}: its text stands {len(places)} times in the prompt of {where}, and which of them is "
            "the document cannot be told; have task.prompt name the column, once"
        )
    return places[0]


def _marked(
    messages: Messages, build: Callable[[Mapping[str, Any]], Messages], row: Mapping[str, Any]
) -> list[Document]:
    """By the marks in the chat of a row that has them; none if they change anything else of it."""
    try:
        marked = build(row)
    except ConfigError:  # a value with marks is another value: no chat in JSON, for example
        return []
    plain = tuple(
        {**message, "content": message["content"].replace(BEGIN, "").replace(END, "")} for message in marked
    )
    if plain != messages:
        return []
    found = []
    for index, message in enumerate(marked):
        content, dropped, at = message["content"], 0, 0
        while (begin := content.find(BEGIN, at)) >= 0 and (end := content.find(END, begin)) >= 0:
            found.append(Document(index, begin - dropped, end - dropped - len(BEGIN)))
            dropped, at = dropped + len(BEGIN) + len(END), end + len(END)
    return found


def _found(messages: Messages, text: str) -> list[Document]:
    """Every place where the text stands."""
    found = []
    for index, message in enumerate(messages):
        at = message["content"].find(text)
        while at >= 0:
            found.append(Document(index, at, at + len(text)))
            at = message["content"].find(text, at + 1)
    return found


def document_tokens(
    problem: Problem,
    tokenizer: Any,
    rendered: Callable[[Problem], str],
    special: bool,
) -> tuple[int, int] | None:
    """The tokens of a rendered prompt that are of the document alone: index of the first and past the last.

    Args:
        problem: Whose document is looked for.
        tokenizer: Of the model.
        rendered: The text that the model sees of a problem.
        special: Whether the tokenizer adds special tokens to it.

    Returns:
        None: it has no document, or none of the tokens is of it alone.

    Raises:
        ConfigError: The chat template changes the document, or the tokenizer does not say where tokens lie.
    """
    document = problem.document
    if document is None:
        return None
    option = f"task.document: problem '{problem.id}'"
    chat = [dict(message) for message in problem.messages]
    content = chat[document.message]["content"]
    chat[document.message]["content"] = (
        content[: document.start]
        + BEGIN
        + content[document.start : document.end]
        + END
        + content[document.end :]
    )
    text, marked = rendered(problem), rendered(replace(problem, messages=tuple(chat)))
    begin, end = marked.find(BEGIN), marked.find(END) - len(BEGIN)
    if (
        marked.count(BEGIN) != 1
        or marked.count(END) != 1
        or marked.replace(BEGIN, "").replace(END, "") != text
    ):
        raise ConfigError(
            f"{option}: the model's chat template changes the document, so that its place is not known; "
            "leave task.document out"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"{option}: this model's tokenizer does not say where its tokens lie; leave task.document out"
        )
    offsets: Sequence[tuple[int, int]] = tokenizer(
        text, add_special_tokens=special, return_offsets_mapping=True
    )["offset_mapping"]
    inside = [index for index, (low, high) in enumerate(offsets) if begin <= low < high <= end]
    return (inside[0], inside[-1] + 1) if inside else None
