"""What came along with the rows from the dataset: columns by which a reader may filter problems."""

from __future__ import annotations

import json
from collections.abc import Iterable

from seer_ray.results import schema
from seer_ray.results.folder import RunFolder

COLUMN = "inputs"
"""Of the results: columns of the dataset's row, as a JSON object."""
FEWEST, MOST = 2, 40
"""Values of a column that make it worth a filter."""


def inputs_of(folders: Iterable[RunFolder]) -> dict[str, dict[str, str]]:
    """Problem -> column -> value as text, of the columns whose values are few enough to choose from."""
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        if COLUMN not in schema.NAMES:
            return {}
        rows = folder.read(("problem_id", COLUMN))
        for problem, text in zip(*(rows[name].to_pylist() for name in ("problem_id", COLUMN)), strict=True):
            if text and problem not in found:
                found[problem] = {name: _text(value) for name, value in json.loads(text).items()}
    columns = {name: set[str]() for values in found.values() for name in values}
    for values in found.values():
        for name, value in values.items():
            columns[name].add(value)
    # As many values as problems tell problems apart, and no groups of them.
    kept = {n for n, seen in columns.items() if FEWEST <= len(seen) <= MOST and len(seen) < len(found)}
    return {
        problem: {name: value for name, value in values.items() if name in kept}
        for problem, values in found.items()
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
