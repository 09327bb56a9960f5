"""What a table of completions amounts to.

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

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

COLUMNS = (
    "problem_id",
    "sample",
    "extracted_answer",
    "correct",
    "error",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "attended_kv",
    "available_kv",
    "queued_s",
    "prefill_s",
    "decode_s",
    "preemptions",
    "attempts",
)
"""What ``summarise`` reads of a table of completions."""


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


class Accuracy:
    """Mean of right and wrong with its clustered standard error, kept up to date row by row."""

    def __init__(self) -> None:
        self.samples = 0
        self.right = 0
        self._problems: dict[str, tuple[int, int]] = {}
        # Over problems with n samples of which c are right: the sums of c*c, c*n and n*n.
        self._cc = self._cn = self._nn = 0

    def add(self, problem: str, correct: bool | None, error: bool = False) -> None:
        """A committed row; ``correct`` and ``error`` as in its columns."""
        counted = False if error else correct
        if counted is None:
            return
        n, c = self._problems.get(problem, (0, 0))
        right = int(counted)
        self._cc += 2 * c * right + right
        self._cn += c + n * right + right
        self._nn += 2 * n + 1
        self._problems[problem] = (n + 1, c + right)
        self.samples += 1
        self.right += right

    @property
    def mean(self) -> float | None:
        """None before the first counted row."""
        return self.right / self.samples if self.samples else None

    @property
    def stderr(self) -> float | None:
        """Of the mean, in the same unit. None with fewer than two problems."""
        groups = len(self._problems)
        if groups < 2:
            return None
        # Sum over problems of (c - n * mean)^2, times samples^2, in whole numbers.
        s, r = self.samples, self.right
        spread = self._cc * s * s - 2 * self._cn * s * r + self._nn * r * r
        return math.sqrt(groups / (groups - 1) * spread) / (s * s)


def summarise(table: pa.Table) -> dict[str, float | int]:
    """Metrics of completions, under names that MLflow takes.

    A metric about which nothing is known (accuracy without a grader, spread of one problem) is absent.

    Args:
        table: of the results schema; ``COLUMNS`` suffice. Any subset of a run's rows.
    """
    columns = {name: table[name].to_pylist() for name in COLUMNS}
    whole = [error is None for error in columns["error"]]
    problems = _problems(columns)
    return {
        **_counts(columns, whole, len(problems)),
        **_accuracy(problems),
        **_completions(columns, whole),
    }


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that of k samples, drawn without replacement from n of which c are right, one is right."""
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


def _problems(columns: dict[str, list[Any]]) -> dict[str, list[Sample]]:
    problems: dict[str, list[Sample]] = defaultdict(list)
    names = ("problem_id", "sample", "extracted_answer", "correct", "error")
    for problem, number, answer, correct, error in zip(*(columns[name] for name in names), strict=True):
        problems[problem].append(Sample(number, answer, correct, error is not None))
    return problems


def _counts(columns: dict[str, list[Any]], whole: list[bool], problems: int) -> dict[str, float | int]:
    return {
        "rows/total": len(whole),
        "rows/problems": problems,
        "rows/errors": whole.count(False),
        "rows/ungraded": list(itertools.compress(columns["correct"], whole)).count(None),
        "rows/retried": sum(attempts > 1 for attempts in columns["attempts"]),
        "tokens/prompt": sum(columns["prompt_tokens"]),
        "tokens/completion": sum(columns["completion_tokens"]),
        "time/prefill_s": math.fsum(columns["prefill_s"]),
        "time/decode_s": math.fsum(columns["decode_s"]),
        "time/queued_s": math.fsum(columns["queued_s"]),
        "engine/preemptions": sum(columns["preemptions"]),
    }


def _accuracy(problems: dict[str, list[Sample]]) -> dict[str, float | int]:
    counted, without_errors = Accuracy(), Accuracy()
    answered: list[bool] = []
    for problem, samples in problems.items():
        for sample in samples:
            counted.add(problem, sample.correct, sample.error)
            if not sample.error:
                without_errors.add(problem, sample.correct)
                answered.append(sample.answer is not None)
    if without_errors.mean is None:
        return {}
    assert counted.mean is not None
    found: dict[str, float | int] = {
        "accuracy/avg": counted.mean,
        "accuracy/avg_without_errors": without_errors.mean,
        "accuracy/no_answer_rate": 1 - sum(answered) / len(answered),
    }
    if counted.stderr is not None:
        found["accuracy/stderr"] = counted.stderr
    most = max(len(samples) for samples in problems.values())
    verdicts = [verdict for samples in problems.values() if (verdict := majority(samples)) is not None]
    if verdicts:
        found[f"accuracy/majority_at_{most}"] = sum(verdicts) / len(verdicts)
    return found | _pass(problems)


def _pass(problems: dict[str, list[Sample]]) -> dict[str, float | int]:
    """pass@k for powers of two and for all samples, over the problems that have k of them.

    Where some have fewer, ``..._problems`` says over how many the mean goes.
    """
    tallies = [[s.counted for s in samples if s.counted is not None] for samples in problems.values()]
    counts = [(len(tally), sum(tally)) for tally in tallies if tally]
    most = max((n for n, _ in counts), default=0)
    found: dict[str, float | int] = {}
    for k in sorted({most, *(2**i for i in range(most.bit_length()))} - {0}):
        chances = [pass_at_k(n, c, k) for n, c in counts if n >= k]
        found[f"accuracy/pass_at_{k}"] = math.fsum(chances) / len(chances)
        if len(chances) < len(problems):
            found[f"accuracy/pass_at_{k}_problems"] = len(chances)
    return found


def _completions(columns: dict[str, list[Any]], whole: list[bool]) -> dict[str, float | int]:
    """Of the rows that have a completion."""
    if not any(whole):
        return {}
    chosen = {name: list(itertools.compress(values, whole)) for name, values in columns.items()}
    lengths = chosen["completion_tokens"]
    generated, attended, available = sum(lengths), sum(chosen["attended_kv"]), sum(chosen["available_kv"])
    found: dict[str, float | int] = {
        "length/truncation_rate": chosen["finish_reason"].count("length") / len(lengths),
        "length/mean_tokens": generated / len(lengths),
        "length/median_tokens": float(np.median(lengths)),
        "length/p90_tokens": float(np.percentile(lengths, 90)),
        "length/max_tokens": max(lengths),
        "kv/attended": attended,
        "kv/available": available,
    }
    if generated:
        found["kv/attended_per_token"] = attended / generated
    if available:
        found["kv/sparsity"] = 1 - attended / available
    return found


@dataclasses.dataclass
class Totals:
    """Sums over rows, for figures that are ratios of sums."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "problem_id",
        "correct",
        "error",
        "prompt_tokens",
        "completion_tokens",
        "attended_kv",
        "available_kv",
    )
    """That are read of a row, here and for accuracy."""

    rows: int = 0
    tokens: int = 0
    attended: int = 0
    available: int = 0
    contexts: int = 0
    """Length of the context of each generated token, summed: what one head of one layer could have read."""

    def add(self, row: Mapping[str, Any]) -> None:
        """A row with a completion; what ``COLUMNS`` names is read."""
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
