"""What is to be solved: rows of a dataset, or of a built-in generator, as problems."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks.extraction import choice_letter
from seer_ray.tasks.generators import generate
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.prompts import as_text, build_messages, check_template, column_value
from seer_ray.tasks.sources import Row, WrittenFloat, read_rows

MAX_DIGITS = 400
"""Of a whole number that is written out."""
GENERATED = 8
"""Built-in problems, if the task has no limit."""
BATCH_URL = "/v1/chat/completions"


def load_problems(task: TaskConfig) -> list[Problem]:
    """The task's problems, in the order of the data or of ``task.shuffle``.

    A shuffle sorts by a hash of seed and id: the same on every machine, and what a row's rank is does not
    depend on its place in the file. For the built-in problems it is the seed of the generator.

    Raises:
        ConfigError: Whatever is wrong with the data; names the option or the file and line.
    """
    check_template(task.prompt)
    columns = task.columns
    if task.data is None:
        rows, columns = list(_generated(task)), ColumnsConfig()
    else:
        # Without a shuffle, what is beyond the limit need not be read.
        found = read_rows(task.data, task.subset, task.split)
        rows = list(itertools.islice(found, task.limit if task.shuffle is None else None))
    if not rows:
        raise ConfigError(f"task.data={task.data}: has no rows")
    if _is_batch(rows[0][1]):
        rows = [(where, _from_batch(row, columns, where)) for where, row in rows]
        columns = replace(columns, messages=columns.messages or "messages")
    if columns.messages is not None and task.prompt != TaskConfig.prompt:
        raise ConfigError(
            f"task.prompt={task.prompt!r}: the rows of {task.data} are whole chats; leave it out"
        )

    named = _with_ids(rows, columns, task)
    if task.shuffle is not None and task.data is not None:
        named.sort(key=lambda item: hashlib.sha256(f"{task.shuffle}/{item[0]}".encode()).digest())
    return [_problem(id, row, columns, task, where) for id, where, row in named[: task.limit]]


def _generated(task: TaskConfig) -> Iterator[Row]:
    for index in range(task.limit or GENERATED):
        made = generate(task.generator, index, task.shuffle or 0)
        yield made.id, {"id": made.id, "question": made.question, "answer": made.answer}


def _with_ids(
    rows: list[Row], columns: ColumnsConfig, task: TaskConfig
) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, where, row), every id once."""
    column = columns.id or ("id" if "id" in rows[0][1] else None)
    named, places = [], dict[str, list[str]]()
    for number, (where, row) in enumerate(rows):
        id = number if column is None else column_value(row, column, f"task.columns.id={column}", where)
        if id is None or not str(id).strip():
            raise ConfigError(f"task.columns.id={column}: empty in {where}")
        named.append((str(id), where, row))
        places.setdefault(str(id), []).append(where)
    twice = {id: where for id, where in places.items() if len(where) > 1}
    if twice:
        first = "; ".join(f"'{id}' in {' and '.join(where[:2])}" for id, where in list(twice.items())[:3])
        raise ConfigError(
            f"task.data={task.data}: {len(twice)} ids are not unique: {first}; "
            f"name another column by task.columns.id"
        )
    return named


def _problem(id: str, row: dict[str, Any], columns: ColumnsConfig, task: TaskConfig, where: str) -> Problem:
    messages, answer = build_messages(row, columns, task, where), None
    if columns.answer is not None and (task.grader != "none" or columns.answer in row):
        answer = answer_text(
            column_value(row, columns.answer, f"task.columns.answer={columns.answer}", where)
        )
    if task.grader == "choice" and answer is not None and choice_letter(answer) is None:
        raise ConfigError(
            f"task.grader=choice: the answer in {where} is {answer!r}, not a letter from A to J"
        )
    return Problem(id, messages, answer)


def answer_text(value: Any) -> str | None:
    """A reference answer as text: 18.0 as ``18``, a list as its elements; None, NaN, blank: no answer."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(answer_text, value))) or None
    if isinstance(value, float | Decimal):
        return _number_text(value)
    return None if value is None else as_text(value).strip() or None


def _number_text(value: float | Decimal) -> str | None:
    """A number as it was written, or with as few digits as say which it is; whole numbers as such."""
    text = (
        value.text
        if isinstance(value, WrittenFloat)
        else format(value, "f")
        if isinstance(value, Decimal)
        else str(value)
    )
    exact = Decimal(text)
    if exact.is_nan():
        return None
    whole = exact.is_finite() and exact.adjusted() < MAX_DIGITS and exact == exact.to_integral_value()
    return format(exact, ".0f") if whole else text


def _is_batch(row: dict[str, Any]) -> bool:
    """Whether a row is a line of OpenAI's batch input format."""
    return "custom_id" in row and "body" in row


def _from_batch(row: dict[str, Any], columns: ColumnsConfig, where: str) -> dict[str, Any]:
    """A line of OpenAI's batch format as a row: id, messages, metadata and, if there is one, the answer."""
    body = row.get("body")
    if not _is_batch(row) or not isinstance(body, dict) or "messages" not in body:
        raise ConfigError(f"{where}: not a line of an OpenAI batch: must have custom_id and body.messages")
    if row.get("url", BATCH_URL) != BATCH_URL:
        raise ConfigError(f"{where}: url={row['url']}: must be {BATCH_URL}")
    metadata = body.get("metadata")
    flat = {**body, **(metadata if isinstance(metadata, dict) else {}), **row, "id": row["custom_id"]}
    flat["messages"] = body["messages"]
    if columns.answer is not None:
        flat.setdefault(columns.answer, None)
    return flat
