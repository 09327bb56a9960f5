"""What metrics are computed from: sums over rows, the rows themselves, and what the job measured.

What counts for accuracy, with n samples a problem:

- A graded row counts as it was graded, also when no answer was found in it or it was cut off.
- A row with an error (no completion: prompt too long, workers that died) counts as wrong, since a job that
  loses the hard problems must not look better for it. ``accuracy/avg_without_errors`` leaves these out.
- A row that has a completion but no grade (the grader failed, there is no reference) counts nowhere: what is
  right is not known. ``rows/errors`` and ``rows/ungraded`` say how many there are of either.

Everything is divided by the samples seen, so a job that is still running, or that lost rows, is not diluted.
Standard errors are clustered by problem: samples of one problem are no independent evidence.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seer_ray.analysis.clustered import ClusteredMean
from seer_ray.analysis.columns import Array, Columns, by_place, exact_sum, floats
from seer_ray.analysis.sequential import Saved
from seer_ray.config.fields import MOST_DRAFTED
from seer_ray.results.schema import clean, schema
from seer_ray.results.speed import Speed


def counted_as(rows: pa.RecordBatch) -> NDArray[np.float64]:
    """Rows as accuracy counts them, 1 or 0, [rows]; NaN: it does not."""
    failed = rows["error"].is_valid().to_numpy(zero_copy_only=False)
    return np.where(failed, 0.0, floats(rows["correct"]))


@dataclass
class Totals:
    """Sums over rows, kept up to date as they come."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "problem_id",
        "sample",
        "correct",
        "error",
        "prompt_tokens",
        "completion_tokens",
        "attended_kv",
        "available_kv",
        "drafted",
        "accepted",
        "draft_kv",
    )
    """That are read of a row."""
    SCHEMA: ClassVar[pa.Schema] = pa.schema([schema().field(name) for name in COLUMNS])

    first: int | None = None
    """Samples of a problem that count for accuracy, from the first; None: all. Where a problem is sampled
    until it is decided, its later samples are there because of what the earlier ones showed."""
    accuracy: ClusteredMean = field(default_factory=ClusteredMean)
    """Of rows that were graded, 1 or 0, and of errors, 0."""
    graded: int = 0
    """Of those that count for accuracy."""
    errors: int = 0
    rows: int = 0
    """That have a completion; so in all that follow."""
    tokens: int = 0
    attended: int = 0
    available: int = 0
    drafted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MOST_DRAFTED, np.int64))
    """Draft tokens by place behind the last token that was decided, and in ``accepted`` those that became
    tokens."""
    accepted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MOST_DRAFTED, np.int64))
    drafted_kv: int = 0
    """Of ``attended``, that of drafts."""
    drafted_tokens: int = 0
    """Of ``tokens``, those of chains for which something was drafted; and dense passes of these."""
    passes: int = 0
    contexts: int = 0
    """Length of the context of each generated token, summed: what one head of one layer could have read."""

    @classmethod
    def batch(cls, rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
        """Rows as ``add`` takes them."""
        said = [{name: clean(row.get(name)) for name in cls.COLUMNS} for row in rows]
        return pa.RecordBatch.from_pylist(said, cls.SCHEMA)

    def add(self, rows: pa.RecordBatch) -> None:
        """Rows that are done; what ``COLUMNS`` names is read."""
        failed, value = rows["error"].is_valid().to_numpy(zero_copy_only=False), counted_as(rows)
        counted = ~np.isnan(value)
        if self.first is not None:
            counted &= rows["sample"].to_numpy() < self.first
        self.accuracy.add(rows["problem_id"].filter(pa.array(counted)), value[counted])
        self.graded += int((counted & ~failed).sum())
        self.errors += int(failed.sum())
        self.rows += int((~failed).sum())
        names = ("prompt_tokens", "completion_tokens", "attended_kv", "available_kv")
        complete = (rows[name].to_numpy()[~failed].astype(np.int64, copy=False) for name in names)
        prompt, length, attended, available = complete
        self.tokens += exact_sum(length)
        self.attended += exact_sum(attended)
        self.available += exact_sum(available)
        self.contexts += exact_sum(length * prompt + length * (length - 1) // 2)
        if rows["drafted"].null_count < len(rows):
            self._add_drafts(rows.filter(pa.array(~failed)))

    def _add_drafts(self, rows: pa.RecordBatch) -> None:
        rows = rows.filter(rows["drafted"].is_valid())
        if not len(rows):
            return
        self.drafted += by_place(rows["drafted"])
        self.accepted += by_place(rows["accepted"])
        self.drafted_kv += exact_sum(rows["draft_kv"].drop_null().to_numpy())
        tokens = rows["completion_tokens"].to_numpy().astype(np.int64)
        counts = np.asarray(rows["accepted"].value_lengths())
        accepted = np.add.reduceat(np.asarray(rows["accepted"].flatten()), np.cumsum(counts) - counts)
        # The last pass of a chain brings no token of its own where one that it accepts ends the chain.
        passes = np.maximum(tokens - accepted, pc.list_element(rows["drafted"], 0).to_numpy())
        self.drafted_tokens += exact_sum(tokens)
        self.passes += exact_sum(passes)

    @property
    def sparsity(self) -> float | None:
        return 1 - self.attended / self.available if self.available else None

    @property
    def acceptance(self) -> float | None:
        """Of draft tokens; None: there were none."""
        return float(self.accepted.sum() / self.drafted.sum()) if self.drafted.any() else None

    @property
    def mean_attended(self) -> float | None:
        """KV tokens read per layer, KV head and decode step."""
        if not self.available or not self.tokens:
            return None
        return self.attended / self.available * self.contexts / self.tokens


@dataclass(frozen=True)
class Sample:
    """One row, as far as accuracy goes."""

    number: int
    answer: Hashable | None
    """What tells it from others."""
    correct: bool | None
    """None: not graded."""
    error: bool

    @property
    def counted(self) -> bool | None:
        """As accuracy counts it; None: it does not."""
        return False if self.error else self.correct


class Rows:
    """Completions and errors as arrays, see ``Columns``.

    Args:
        columns: that are read of them.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self.all = Columns(columns)
        """Of every row."""

    def add(self, batch: pa.RecordBatch) -> None:
        """More rows."""
        self.all.add(batch)

    def complete(self, column: str) -> Array:
        """Of those that have a completion."""
        found: Array = self.all[column][~self.all["error"]]
        return found

    def counted(self, first: int | None) -> NDArray[np.float64]:
        """As accuracy counts each row, 1 or 0; NaN: it does not.

        Args:
            first: see ``Totals``.
        """
        value = np.where(self.all["error"], 0.0, self.all["correct"])
        return value if first is None else np.where(self.all["sample"] < first, value, np.nan)

    def samples_of_problems(self) -> NDArray[np.int64]:
        """How many there are of each problem, [problems]."""
        return np.bincount(self.all["problem_id"])

    def problems(self) -> Iterator[list[Sample]]:
        """The samples of each problem, one problem after the other."""
        order = np.lexsort((self.all["sample"], self.all["problem_id"]))
        ends = np.cumsum(self.samples_of_problems())
        columns = [self.all[name] for name in ("sample", "extracted_answer", "correct", "error")]
        for begin, end in itertools.pairwise([0, *ends.tolist()]):
            found = zip(*(column[order[begin:end]].tolist() for column in columns), strict=True)
            yield [
                Sample(number, None if answer < 0 else answer, None if right != right else bool(right), error)
                for number, answer, right, error in found
            ]


NO_ROWS = Rows(())


@dataclass(frozen=True)
class Run:
    """A run, as far as it came."""

    totals: Totals
    rows: Rows = NO_ROWS
    """All of them, at the end; none while the job runs, when its sums must do."""
    speed: Speed | None = None
    engines: Mapping[str, float] = field(default_factory=dict)
    """Counters of the engines, over all of the job's sessions."""
    saved: Saved | None = None
    """Samples that were not taken; None: all were to be."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that of k samples, drawn without replacement from n of which c are right, one is right
    (Chen et al. 2021)."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority(samples: Iterable[Sample]) -> bool | None:
    """Whether the answer given most often is right; among equals, the one given first by sample number.

    No answer at all is wrong. None: the answer is not graded, or nothing is.
    """
    ordered = sorted(samples, key=lambda sample: sample.number)
    votes: dict[Hashable, int] = defaultdict(int)
    grades: dict[Hashable, bool] = {}
    for sample in ordered:
        if sample.answer is not None and not sample.error:
            votes[sample.answer] += 1
            if sample.correct is not None:
                grades.setdefault(sample.answer, sample.correct)
    if votes:
        return grades.get(max(votes, key=lambda answer: votes[answer]))
    return False if any(sample.counted is not None for sample in ordered) else None
