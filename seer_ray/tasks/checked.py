"""Values of settings that data has, checked: each of these makes what is used of a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Parse = Callable[[Any], Any]
"""The value of a key as it is used. Raises ValueError: what it must be."""


def whole(least: int | None = None, most: int | None = None) -> Parse:
    def parse(value: Any) -> int:
        wrong = isinstance(value, bool) or not isinstance(value, (int, float))
        if wrong or not float(value).is_integer():
            raise ValueError("a whole number")
        if (least is not None and value < least) or (most is not None and value > most):
            raise ValueError(f"a whole number{_between(least, most)}")
        return int(value)

    return parse


def number(least: float, most: float | None = None) -> Parse:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("a number")
        if not value >= least or value == float("inf") or (most is not None and value > most):
            raise ValueError(f"a number{_between(least, most)}")
        return float(value)

    return parse


def _between(least: float | None, most: float | None) -> str:
    ends = {"at least": least, "at most": most}
    return "".join(f", {word} {limit}" for word, limit in ends.items() if limit is not None)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def top_k(value: Any) -> int:
    return max(0, int(whole(-1)(value)))


def texts(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise ValueError("a text or a list of texts")
    return tuple(found)


def ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of token ids")
    return tuple(map(whole(0), value))


def bias(value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, Mapping) or not all(str(id).isdecimal() for id in value):
        raise ValueError("an object of token ids and numbers")
    # A struct column has every key of every row.
    found = {int(id): number(-100, 100)(of) for id, of in value.items() if of is not None}
    return tuple(sorted(found.items()))


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("an object")
    return dict(value)


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def one_of(ways: tuple[Any, ...]) -> Parse:
    def parse(value: Any) -> Any:
        if value not in ways:
            raise ValueError(" or ".join(map(json.dumps, ways)))
        return value

    return parse
