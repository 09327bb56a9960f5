"""Settings by two budgets: how long a chain may think, and how much its attention may read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

THINKING = "sampling.thinking_budget"
SHORT = {THINKING: "think"}
"""Options by shorter names, in those of points and settings: tables have them in every line."""
_IN_NAMES = re.compile(rf"[ -]{SHORT[THINKING]}=\w+")

T = TypeVar("T")


@dataclass(frozen=True)
class Grid(Generic[T]):
    """Rows are settings that differ in more than how long they may think; columns are thinking budgets."""

    budgets: tuple[int | None, ...]
    """In tokens, ascending; None, no limit, last."""
    rows: dict[str, dict[int | None, T]]
    """By name without the thinking budget, in the order given."""


def thinking_grid(settings: Iterable[tuple[str, Mapping[str, Any], T]]) -> Grid[T] | None:
    """Settings of several thinking budgets. None: there is but one budget.

    Args:
        settings: name, options by dotted name, and what stands in its cell
    """
    rows: dict[str, dict[int | None, T]] = {}
    for name, options, cell in settings:
        rows.setdefault(_IN_NAMES.sub("", name), {})[options.get(THINKING)] = cell
    budgets = sorted({budget for row in rows.values() for budget in row}, key=rank)
    return Grid(tuple(budgets), rows) if len(budgets) > 1 else None


def rank(budget: int | None) -> float:
    """Of a budget among others."""
    return float("inf") if budget is None else budget


def shown(budget: int | None) -> str:
    """A thinking budget as the head of its column."""
    return "no limit" if budget is None else f"{budget:,}"
