"""Rows by the columns of the dataset that ``task.columns.keep`` names: to group and to filter by."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seer_ray.analysis.clustered import ClusteredMean
from seer_ray.analysis.columns import Names
from seer_ray.analysis.rows import counted_as
from seer_ray.config.errors import ConfigError, did_you_mean

COLUMNS = ("problem_id", "correct", "error", "inputs")
"""What is read of a table of completions."""
NONE = "none"
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
    read, places = _inputs(table["inputs"].combine_chunks())
    known = dict.fromkeys(name for row in read for name in row)
    if column not in known:
        there = f"there are {', '.join(known)}" if known else "keep it by task.columns.keep"
        raise ConfigError(f"{column}: not kept of the dataset's rows; {there}{did_you_mean(column, known)}")
    texts = [_text(row.get(column)) for row in read]
    return [texts[place] for place in places.tolist()]


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


def groups_of(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    """Accuracy by the values of each column that is kept and has few of them, as ``Group`` says it.

    Args:
        batches: of completions, ``COLUMNS`` suffice; one is in memory at a time.
    """
    columns: dict[str, _Column] = {}
    before = _Rows()
    for batch in batches:
        read, places = _inputs(batch["inputs"])
        for name in dict.fromkeys(name for row in read for name in row):
            if name not in columns:
                columns[name] = _Column({NONE: copy.deepcopy(before)} if before.count else {})
        problems, counted = batch["problem_id"], counted_as(batch)
        for name, column in columns.items():
            column.add([_text(row.get(name)) for row in read], places, problems, counted)
        before.add(problems, counted)
    return [
        asdict(Group(name, value, rows.count, rows.right.mean, *rows.right.interval))
        for name, column in columns.items()
        for value, rows in sorted(column.values.items())
    ]


@dataclass
class _Rows:
    """How many, and how many of them are right."""

    count: int = 0
    right: ClusteredMean = field(default_factory=ClusteredMean)

    def add(self, problems: pa.Array, counted: NDArray[np.float64]) -> None:
        known = ~np.isnan(counted)
        self.count += len(counted)
        self.right.add(problems.filter(pa.array(known)), counted[known])


@dataclass
class _Column:
    """Rows by their value in a column."""

    values: dict[str, _Rows]
    many: bool = False
    """More values than are told apart."""

    def add(
        self, texts: list[str], places: NDArray[np.int32], problems: pa.Array, counted: NDArray[np.float64]
    ) -> None:
        """
        Args:
            texts: values that there are.
            places: of each row's among them, [rows].
            problems: of the rows.
            counted: of the rows, see ``counted_as``.
        """
        there = {texts[place] for place in np.unique(places).tolist()}
        self.many = self.many or len(there | self.values.keys()) > MOST
        if self.many:
            self.values = {}
            return
        for value in there:
            mine = np.array([text == value for text in texts])[places]
            self.values.setdefault(value, _Rows()).add(problems.filter(pa.array(mine)), counted[mine])


def _inputs(texts: pa.Array) -> tuple[list[dict[str, Any]], NDArray[np.int32]]:
    """What different rows have, and of each row which of it."""
    names = Names(whole=True)
    places = names.numbers(texts)
    return [*map(json.loads, names.texts), {}], places  # the last one of rows that have none


def _text(value: Any) -> str:
    return NONE if value is None else value if isinstance(value, str) else json.dumps(value)
