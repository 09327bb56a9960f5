"""What the error rows of a run are: kinds, each with a few examples."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("problem_id", "sample", "error", "grade_error", "worker", "attempts")
"""What is read of completions."""
EXAMPLES = 3
"""Of each kind that are named."""

# Numbers, and what is quoted, are what rows of one kind differ in.
_OWN = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")


@dataclass(frozen=True)
class ErrorKind:
    """Errors that say the same but for numbers and what is quoted."""

    kind: str
    """``input``, ``engine`` or ``worker``, as ``results.retry_errors`` names them; ``grader``."""
    reason: str
    """Of the first of them, in full."""
    rows: int
    examples: tuple[str, ...]
    """``problem/sample`` of the first few."""

    @property
    def text(self) -> str:
        """In one line."""
        more = ", …" if self.rows > EXAMPLES else ""
        return f"{self.kind}: {self.reason} ({self.rows:,}: {', '.join(self.examples)}{more})"


def kind_of(error: str | None, worker: str | None, attempts: int) -> str:
    """Of a row with an error, or that has no grade: what was at fault."""
    if error is None:
        return "grader"
    if not attempts:
        return "input"  # no worker was asked
    return "engine" if worker is not None else "worker"


def error_kinds(batches: Iterable[pa.RecordBatch]) -> list[ErrorKind]:
    """Kinds of errors, the most frequent first: of rows without a completion, and of grading.

    Args:
        batches: of completions, ``COLUMNS`` suffice; one is in memory at a time.
    """
    found: dict[tuple[str, str], ErrorKind] = {}
    for batch in batches:
        wrong = batch.filter(pc.or_(batch["error"].is_valid(), batch["grade_error"].is_valid()))
        for row in wrong.to_pylist():
            reason = row["error"] if row["error"] is not None else f"not graded: {row['grade_error']}"
            kind = kind_of(row["error"], row["worker"], row["attempts"])
            same = kind, _OWN.sub("…", reason)
            one = found.get(same) or ErrorKind(kind, reason, 0, ())
            name = f"{row['problem_id']}/{row['sample']}"
            examples = (*one.examples, name) if one.rows < EXAMPLES else one.examples
            found[same] = ErrorKind(kind, one.reason, one.rows + 1, examples)
    return sorted(found.values(), key=lambda kind: -kind.rows)
