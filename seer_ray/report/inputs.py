"""What came along with the rows from the dataset: columns by which a reader may filter problems."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

from seer_ray.results.folder import RunFolder

COLUMN = "inputs"
"""Of the results: columns of the dataset's row, as a JSON object."""
FEWEST, MOST = 2, 40
"""Values of a column that make it worth a filter."""


def inputs_of(folders: Iterable[RunFolder]) -> dict[str, dict[str, str]]:
    """Problem -> column -> value as text, of the columns whose values are few enough to choose from."""
    found: dict[str, dict[str, str]] = {}
    columns: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for batch in folder.stream(("problem_id", COLUMN)):
            texts = batch[COLUMN].dictionary_encode()
            read = [json.loads(text) if text else {} for text in texts.dictionary.to_pylist()]
            for problem, place in zip(
                batch["problem_id"].to_pylist(), texts.indices.to_pylist(), strict=True
            ):
                if place is None or problem in found:
                    continue
                found[problem] = values = {}
                for name, value in read[place].items():
                    # One more than there may be tells that there are too many.
                    if len(seen := columns[name]) <= MOST:
                        values[name] = _text(value)
                        seen.add(values[name])
    # As many values as problems tell problems apart, and no groups of them.
    kept = {n for n, seen in columns.items() if FEWEST <= len(seen) <= MOST and len(seen) < len(found)}
    return {
        problem: {name: value for name, value in values.items() if name in kept}
        for problem, values in found.items()
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
