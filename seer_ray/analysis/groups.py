"""Rows by the columns of the dataset that ``task.columns.keep`` names: to group and to filter by."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from seer_ray.analysis.clustered import ClusteredMean
from seer_ray.analysis.rows import counted
from seer_ray.config.errors import ConfigError, did_you_mean

COLUMNS = ("problem_id", "correct", "error", "inputs")
"""What is read of a table of completions."""
MOST = 20
"""Values of a column that are told apart: one of more is no group but an id."""


@dataclass(frozen=True)
class Group:
    """Rows with the same value in a column."""

    column: str
    value: str
    rows: int
    accuracy: float | None
    low: float | None
    """Of its 95 % interval, by problem; None: not known."""
    high: float | None


def values_of(table: pa.Table, column: str) -> list[str]:
    """Of each row, as text; a row without it has ``none``.

    Raises:
        ConfigError: no row has the column.
    """
    rows = [_read(text) for text in table["inputs"].to_pylist()]
    known = dict.fromkeys(name for row in rows for name in row)
    if column not in known:
        there = f"there are {', '.join(known)}" if known else "keep it by task.columns.keep"
        raise ConfigError(f"{column}: not kept of the dataset's rows; {there}{did_you_mean(column, known)}")
    return [_text(row.get(column)) for row in rows]


def matching(table: pa.Table, wanted: Mapping[str, str]) -> pa.Table:
    """The rows that have these values.

    Raises:
        ConfigError: a column that is not kept, or a value that no row has.
    """
    for column, value in wanted.items():
        found = values_of(table, column)
        if value not in found:
            known = list(dict.fromkeys(found))
            there = ", ".join(known[:MOST])
            raise ConfigError(
                f"{column}={value}: no row has it; there are {there}{did_you_mean(value, known)}"
            )
        table = table.filter(pa.array([one == value for one in found]))
    return table


def groups_of(table: pa.Table) -> list[dict[str, Any]]:
    """Accuracy by the values of each column that is kept and has few of them, as ``Group`` says it."""
    columns = dict.fromkeys(name for text in table["inputs"].to_pylist() for name in _read(text))
    return [asdict(group) for column in columns for group in _by(table, column)]


def _by(table: pa.Table, column: str) -> list[Group]:
    values = values_of(table, column)
    if len(set(values)) > MOST:
        return []
    means: dict[str, ClusteredMean] = defaultdict(ClusteredMean)
    rows = [table[name].to_pylist() for name in ("problem_id", "correct", "error")]
    for value, problem, correct, error in zip(values, *rows, strict=True):
        if (right := counted(correct, error)) is not None:
            means[value].add(problem, float(right))
    return [
        Group(column, value, values.count(value), mean.mean, *mean.interval)
        for value, mean in sorted((value, means[value]) for value in set(values))
    ]


def _read(text: str | None) -> dict[str, Any]:
    return json.loads(text) if text else {}


def _text(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
