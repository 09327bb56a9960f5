"""What the error rows of a run are: kinds, each with a few examples."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa

COLUMNS = ("problem_id", "sample", "error", "grade_error")
"""What is read of a table of completions."""
EXAMPLES = 3
"""Of each kind that are named."""

# Numbers, and what is quoted, are what rows of one kind differ in.
_OWN = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")


@dataclass(frozen=True)
class ErrorKind:
    """Errors that say the same but for numbers and what is quoted."""

    reason: str
    """Of the first of them, in full."""
    rows: int
    examples: tuple[str, ...]
    """``problem/sample`` of the first few."""

    @property
    def text(self) -> str:
        """In one line."""
        more = ", …" if self.rows > EXAMPLES else ""
        return f"{self.reason} ({self.rows:,}: {', '.join(self.examples)}{more})"


def error_kinds(table: pa.Table) -> list[ErrorKind]:
    """Kinds of errors, the most frequent first: of rows without a completion, and of grading.

    Args:
        table: of completions, ``COLUMNS`` suffice
    """
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for problem, sample, error, grade_error in zip(*(table[n].to_pylist() for n in COLUMNS), strict=True):
        reason = error if error is not None else grade_error and f"not graded: {grade_error}"
        if reason:
            found[_OWN.sub("…", reason)].append((reason, f"{problem}/{sample}"))
    kinds = [
        ErrorKind(rows[0][0], len(rows), tuple(name for _, name in rows[:EXAMPLES]))
        for rows in found.values()
    ]
    return sorted(kinds, key=lambda kind: -kind.rows)
