"""Values of dataset rows: found by column or by field, and as text."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean

_PLAIN = (
    bool,
    int,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    type(None),
)
LONGEST_ID = 1024
"""Characters."""


def column_value(row: Mapping[str, Any], column: str, option: str, where: str) -> Any:
    """The row's value in a column that an option names, or in a field of it: ``reward_model.ground_truth``.

    A struct may be kept as JSON text. A column whose own name has the dots comes first.

    Raises:
        ConfigError: There is no such column or field; names those there are.
    """
    if column in row:
        return row[column]
    parts = column.split(".")
    heads = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    head = next((head for head in heads if head in row), None)
    if head is None:
        raise ConfigError(
            f"{option}: no column '{column}' in {where}{did_you_mean(column, row)}; columns: {', '.join(row)}"
        )
    value = row[head]
    for field in column[len(head) + 1 :].split("."):
        fields = parsed(value)
        if not isinstance(fields, Mapping):
            raise ConfigError(f"{option}: '{head}' in {where} has no fields: it is {kind(value)}")
        if field not in fields:
            names = [str(name) for name in fields]
            near = did_you_mean(field, names)
            raise ConfigError(
                f"{option}: no field '{field}' in '{head}' of {where}{near}; fields: {', '.join(names)}"
            )
        head, value = f"{head}.{field}", fields[field]
    return value


def has_column(row: Mapping[str, Any], column: str) -> bool:
    """Whether there is such a column or field."""
    if column in row:
        return True
    if "." not in column:
        return False
    with contextlib.suppress(ConfigError):
        column_value(row, column, "", "")
        return True
    return False


def as_text(value: Any, what: str = "the value", where: str = "the row") -> str:
    """A dataset value as text: strings as they are, numbers and dates as Python writes them, lists as JSON.

    Args:
        value: As the dataset has it.
        what, where: What it is called in errors, such as ``task.columns.answer=solution``.

    Raises:
        ConfigError: It is a struct, a chat, bytes, or no number.
    """
    if isinstance(value, str):
        if as_chat(value) is None:
            return value
    elif isinstance(value, Mapping):
        name = what.rpartition(": ")[2].rpartition("=")[2]
        first = next(iter(value), "field")
        raise ConfigError(
            f"{what}: is a struct in {where}, with the fields {', '.join(map(str, value)) or 'of none'}; "
            f"name one, such as {name}.{first}"
        )
    elif isinstance(value, (list, tuple)):
        if as_chat(value) is None:
            # Each of them on its own: what is no text in a list is none either.
            for item in value:
                as_text(item, what, where)
            return json.dumps(value, ensure_ascii=False, default=str)
    elif isinstance(value, _PLAIN) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    else:
        raise ConfigError(f"{what}: must be text, is {kind(value)} in {where}")
    raise ConfigError(f"{what}: is a whole chat in {where}, not a part of a message")


def as_chat(value: Any) -> list[Mapping[str, Any]] | None:
    """A list of messages, or JSON text of one; None: it is something else."""
    if isinstance(value, str) and (value[:1].isalnum() or not value.lstrip().startswith("[")):
        return None
    value = parsed(value)
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if not all(isinstance(item, Mapping) and {"role", "content"} <= item.keys() for item in value):
        return None
    return list(value)


def as_id(value: Any, option: str, where: str) -> str:
    """A row's id as text.

    Raises:
        ConfigError: It is empty, too long, or of a kind that names nothing.
    """
    if value is None or not str(value).strip():
        raise ConfigError(f"{option}: empty in {where}")
    if isinstance(value, (bool, Mapping, list, tuple)) or (not isinstance(value, (str, float, *_PLAIN))):
        raise ConfigError(f"{option}: must be text or a number, is {kind(value)} in {where}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{option}: must be text or a number, is {value} in {where}")
    text = str(value)
    if len(text) > LONGEST_ID:
        raise ConfigError(f"{option}: {len(text):,} characters in {where}; must be at most {LONGEST_ID:,}")
    if "\0" in text:
        raise ConfigError(f"{option}: has a NUL character in {where}, where other programs would end it")
    check_unicode(text, option, where)
    return text


def check_unicode(text: str, what: str, where: str) -> None:
    """
    Raises:
        ConfigError: The text has half a character, which no tokenizer and no file can hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{what}: has half a character, {text[error.start]!a} at {error.start + 1}, in {where}"
        ) from error


def kind(value: Any) -> str:
    """What a value is, in a word or two."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return {"dict": "a struct", "NoneType": "null", "str": "text"}.get(
        type(value).__name__, type(value).__name__
    )


def parsed(value: Any) -> Any:
    """A value, or what it holds if it is JSON text; None: it is other text."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(value)
    return None
