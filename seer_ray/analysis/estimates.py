"""What one setting came to, every figure with what it rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seer_ray.analysis import clustered
from seer_ray.analysis.outcomes import Array, Outcomes
from seer_ray.analysis.statistics import Sample, majority, pass_at_k

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


@dataclass(frozen=True)
class Estimate:
    """A share or mean with its uncertainty. NaN: cannot be known (one problem has no spread)."""

    value: float
    stderr: float
    """Clustered by problem."""
    low: float
    high: float
    problems: int
    """That it rests on."""
    samples: int


@dataclass(frozen=True)
class Lengths:
    """Of the completions there are, in tokens."""

    mean: float
    quantiles: dict[float, float]
    longest: float
    samples: int


def share(values: Array, confidence: float = 0.95) -> Estimate | None:
    """Mean of values within [0, 1].

    Args:
        values: [problems, samples]; NaN: not there, and in no denominator

    Returns:
        None: there is no value.
    """
    counts = (~np.isnan(values)).sum(-1)
    if not counts.sum():
        return None
    found = clustered.proportion(np.nansum(values, -1), counts, confidence)
    value, stderr, low, high = (float(x) for x in found)
    return Estimate(value, stderr, low, high, int((counts > 0).sum()), int(counts.sum()))


def accuracy(outcomes: Outcomes, confidence: float = 0.95) -> Estimate | None:
    """avg@k: share of right samples. Errors count as wrong; missing and ungraded samples do not count."""
    return share(outcomes.correct, confidence)


def no_answer(outcomes: Outcomes, confidence: float = 0.95) -> Estimate | None:
    """Share of completions in which the grader found no answer."""
    return share(1 - outcomes.answered, confidence)


def truncation(outcomes: Outcomes, confidence: float = 0.95) -> Estimate | None:
    """Share of completions that were cut off at the limit."""
    return share(outcomes.truncated, confidence)


def pass_at(outcomes: Outcomes, k: int, confidence: float = 0.95) -> Estimate | None:
    """pass@k, unbiased (Chen et al. 2021), over the problems that have k graded samples."""
    counts = (~np.isnan(outcomes.correct)).sum(-1)
    right = np.nansum(outcomes.correct, -1)
    chances = [pass_at_k(int(n), int(c), k) if n >= k else np.nan for n, c in zip(counts, right, strict=True)]
    return share(np.array(chances)[:, None], confidence)


def majority_at(outcomes: Outcomes, k: int, confidence: float = 0.95) -> Estimate | None:
    """Share of problems whose most frequent answer among their first k samples is right.

    Only problems that have k samples; one whose answer is not graded does not count.
    """
    verdicts = np.full((len(outcomes.problems), 1), np.nan)
    for i in np.flatnonzero(outcomes.present.sum(-1) >= k):
        samples = [
            Sample(
                outcomes.numbers[j],
                outcomes.answers[i, j],
                None if np.isnan(outcomes.correct[i, j]) else bool(outcomes.correct[i, j]),
                bool(outcomes.error[i, j]),
            )
            for j in np.flatnonzero(outcomes.present[i])[:k]
        ]
        verdict = majority(samples)
        verdicts[i, 0] = np.nan if verdict is None else verdict
    return share(verdicts, confidence)


def lengths(outcomes: Outcomes) -> Lengths | None:
    """None: there is no completion."""
    known = outcomes.tokens[~np.isnan(outcomes.tokens)]
    if not len(known):
        return None
    levels = np.quantile(known, QUANTILES)
    quantiles = {q: float(level) for q, level in zip(QUANTILES, levels, strict=True)}
    return Lengths(float(known.mean()), quantiles, float(known.max()), len(known))
