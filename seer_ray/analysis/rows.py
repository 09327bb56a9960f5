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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from seer_ray.analysis.clustered import ClusteredMean
from seer_ray.analysis.sequential import Saved
from seer_ray.results.speed import Speed


@dataclass
class Totals:
    """Sums over rows, kept up to date row by row."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "problem_id",
        "sample",
        "correct",
        "error",
        "prompt_tokens",
        "completion_tokens",
        "attended_kv",
        "available_kv",
    )
    """That are read of a row."""

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
    contexts: int = 0
    """Length of the context of each generated token, summed: what one head of one layer could have read."""

    def add(self, row: Mapping[str, Any]) -> None:
        """A committed row; what ``COLUMNS`` names is read."""
        counts = self.first is None or row["sample"] < self.first
        if row["error"] is not None:
            self.errors += 1
            if counts:
                self.accuracy.add(row["problem_id"], 0.0)
            return
        if row["correct"] is not None:
            self.graded += counts
            if counts:
                self.accuracy.add(row["problem_id"], float(row["correct"]))
        prompt, length = row["prompt_tokens"], row["completion_tokens"]
        self.rows += 1
        self.tokens += length
        self.attended += row["attended_kv"]
        self.available += row["available_kv"]
        self.contexts += length * prompt + length * (length - 1) // 2

    @property
    def sparsity(self) -> float | None:
        return 1 - self.attended / self.available if self.available else None

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
    answer: str | None
    correct: bool | None
    """None: not graded."""
    error: bool

    @property
    def counted(self) -> bool | None:
        """As accuracy counts it; None: it does not."""
        return False if self.error else self.correct


class Rows:
    """Columns of completions as lists."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self.all = columns
        """Of every row."""
        complete = [error is None for error in columns["error"]]
        self.complete = {name: list(itertools.compress(values, complete)) for name, values in columns.items()}
        """Of those that have a completion."""

    @cached_property
    def problems(self) -> dict[str, list[Sample]]:
        """The samples of each problem."""
        problems: dict[str, list[Sample]] = defaultdict(list)
        names = ("problem_id", "sample", "extracted_answer", "correct", "error")
        for problem, number, answer, correct, error in zip(*(self.all[name] for name in names), strict=True):
            problems[problem].append(Sample(number, answer, correct, error is not None))
        return problems


NO_ROWS = Rows({"error": []})


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
    votes: dict[str, int] = defaultdict(int)
    grades: dict[str, bool] = {}
    for sample in ordered:
        if sample.answer is not None and not sample.error:
            votes[sample.answer] += 1
            if sample.correct is not None:
                grades.setdefault(sample.answer, sample.correct)
    if votes:
        return grades.get(max(votes, key=lambda answer: votes[answer]))
    return False if any(sample.counted is not None for sample in ordered) else None
