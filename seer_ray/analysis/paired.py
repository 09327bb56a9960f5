"""A setting against a baseline, on the same problems and samples.

Only (problem, sample) pairs that are graded in both count. Of the same job seed the two chains of a pair
share their sampling noise; with different seeds the pairs are only of the same problem, which is as valid
and less sharp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seer_ray.analysis import clustered
from seer_ray.analysis.outcomes import Array, Outcomes
from seer_ray.analysis.words import points

SMALL = 20
"""Problems below which an interval is to be read with care."""


@dataclass(frozen=True)
class PairedOutcomes:
    """Pairs of a setting and its baseline. Arrays are [problems, samples]; NaN: no such pair."""

    name: str
    baseline: str
    problems: tuple[str, ...]
    correct: Array
    """Of the setting, 1 or 0."""
    base_correct: Array
    tokens: Array
    """Of the setting's completion; NaN: one of the two has none."""
    base_tokens: Array
    complete: np.ndarray
    """[problems]: every sample of the problem has its row in both, so that its mean changes no more."""
    same_seed: bool
    unmatched: int
    """Samples that one has and the other lacks."""
    unlike: int | None = None
    """Pairs whose tokens differ, where dense attention decided those of both; None: it did not."""

    @property
    def exact(self) -> bool:
        """Nothing is to be estimated: the tokens are the same by how they were decided, and as compared."""
        return self.unlike == 0

    @property
    def difference(self) -> Array:
        """setting - baseline, in -1, 0, 1, [problems, samples]."""
        return self.correct - self.base_correct

    @property
    def counts(self) -> np.ndarray:
        """Graded pairs of each problem, [problems]."""
        return (~np.isnan(self.difference)).sum(-1)


@dataclass(frozen=True)
class Difference:
    """Accuracy of a setting less that of the baseline, as a fraction. NaN: cannot be known."""

    value: float
    stderr: float
    """Clustered by problem."""
    low: float
    high: float
    """Tango's score interval at the effective number of pairs."""
    p_value: float
    """Of "no problem is affected": exact sign flips by problem, two-sided."""
    gained: int
    """Pairs that only the setting has right."""
    lost: int
    """Pairs that only the baseline has right."""
    problems: int
    pairs: int
    confidence: float
    exact: bool = False
    """It is 0 and no estimate, see ``PairedOutcomes``."""

    @property
    def ends(self) -> str:
        """The interval in words, in points."""
        return "exactly: the same tokens" if self.exact else f"{points(self.low)} to {points(self.high)}"

    @property
    def caution(self) -> str | None:
        """What a reader of the interval must know."""
        if self.exact:
            return None
        if self.problems < 2:
            return "one problem says nothing about others"
        if self.problems < SMALL:
            return f"only {self.problems} problems: intervals may be too short"
        return None


@dataclass(frozen=True)
class Drift:
    """Tokens of the setting's completions relative to the baseline's: 0.02 is 2 % longer."""

    value: float
    stderr: float
    low: float
    high: float
    problems: int
    pairs: int


@dataclass(frozen=True)
class NonInferiority:
    """Test of "the setting is worse than the baseline by the margin or more"."""

    margin: float
    p_value: float
    """One-sided; small: the setting keeps the accuracy to within the margin. NaN: too little to tell."""
    low: float
    """Of the difference, with one-sided confidence 1 - alpha."""
    alpha: float

    @property
    def shown(self) -> bool:
        return bool(self.p_value <= self.alpha)


def pair(baseline: Outcomes, setting: Outcomes) -> PairedOutcomes:
    """Two settings, aligned by ``outcomes.align`` together.

    Raises:
        ValueError: they were not aligned together.
    """
    if baseline.problems != setting.problems or baseline.numbers != setting.numbers:
        raise ValueError(f"{setting.name} and {baseline.name} are not aligned")
    graded = ~np.isnan(setting.correct) & ~np.isnan(baseline.correct)
    told = ~np.isnan(setting.tokens) & ~np.isnan(baseline.tokens)
    return PairedOutcomes(
        name=setting.name,
        baseline=baseline.name,
        problems=setting.problems,
        correct=np.where(graded, setting.correct, np.nan),
        base_correct=np.where(graded, baseline.correct, np.nan),
        tokens=np.where(told, setting.tokens, np.nan),
        base_tokens=np.where(told, baseline.tokens, np.nan),
        complete=np.all(setting.present & baseline.present, axis=-1),
        same_seed=setting.seed == baseline.seed,
        unmatched=int((setting.present != baseline.present).sum()),
        unlike=_unlike(baseline, setting, told),
    )


def _unlike(baseline: Outcomes, setting: Outcomes, told: np.ndarray) -> int | None:
    """Of pairs that both have a completion, those whose tokens differ."""
    if baseline.chains is None or setting.chains is None or not (baseline.decided and setting.decided):
        return None
    return int((baseline.chains != setting.chains)[told].sum())


def difference(pairs: PairedOutcomes, confidence: float = 0.95) -> Difference:
    """Difference of accuracies, its interval and its exact test."""
    sums, counts, gained, lost = _counts(pairs)
    total = int(counts.sum())
    if pairs.exact and not gained.any() and not lost.any():
        problems = int((counts > 0).sum())
        return Difference(0.0, 0.0, 0.0, 0.0, 1.0, 0, 0, problems, total, confidence, exact=True)
    value, stderr, rates = tally(gained, lost, counts)
    low, high = clustered.score_interval(*rates, clustered.quantile(0.5 + confidence / 2, counts))
    plus, minus = int(gained.sum()), int(lost.sum())
    return Difference(
        value=float(value),
        stderr=float(stderr),
        low=float(low),
        high=float(high),
        p_value=clustered.sign_flip(sums) if total else np.nan,
        gained=plus,
        lost=minus,
        problems=int((counts > 0).sum()),
        pairs=total,
        confidence=confidence,
    )


def non_inferiority(pairs: PairedOutcomes, margin: float, alpha: float = 0.05) -> NonInferiority:
    """Whether the setting loses less than ``margin`` (a fraction of samples, above 0), with confidence 1 -
    alpha.

    Score test at the margin: its variance is the one it would have there, so that pairs that all agree are as
    much evidence as their number allows, and not proof.
    """
    _, counts, gained, lost = _counts(pairs)
    p, low = non_inferiority_of(gained, lost, counts, margin, alpha)
    return NonInferiority(margin, float(p), float(low), alpha)


def non_inferiority_of(
    gained: Array, lost: Array, counts: Array, margin: float, alpha: float
) -> tuple[Array, Array]:
    """One-sided p-value and lower bound, from tallies [..., problems]."""
    from scipy.special import stdtr

    _, _, rates = tally(gained, lost, counts)
    problems = (counts > 0).sum(-1)
    statistic = clustered.score(*rates, -margin)
    p = np.where(problems > 1, stdtr(np.maximum(problems - 1, 1), -statistic), np.nan)
    low, _ = clustered.score_interval(*rates, clustered.quantile(1 - alpha, counts))
    return p, low


def inferiority(pairs: PairedOutcomes, margin: float) -> float:
    """One-sided p-value of "the setting loses no more than the margin": small where it loses more."""
    _, counts, gained, lost = _counts(pairs)
    # The same test from the other side: the baseline gains what the setting loses.
    return float(non_inferiority_of(lost, gained, counts, -margin, 0.5)[0])


def drift(pairs: PairedOutcomes, confidence: float = 0.95) -> Drift | None:
    """Length against the baseline's, as a ratio of sums, over pairs in which both have a completion.

    Completions that were cut off count with the length they got to. None: there is no such pair.
    """
    known = ~np.isnan(pairs.tokens)
    base = np.nansum(pairs.base_tokens, -1)
    if not base.sum():
        return None
    value, stderr = clustered.ratio(np.nansum(pairs.tokens, -1) - base, base)
    half = clustered.quantile(0.5 + confidence / 2, base) * stderr
    problems = int(known.any(-1).sum())
    ends = float(value - half), float(value + half)
    return Drift(float(value), float(stderr), *ends, problems, int(known.sum()))


def tally(gained: Array, lost: Array, counts: Array) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Difference, its clustered error, and (gained, lost, effective pairs) for ``clustered.score``.

    Args:
        gained: pairs of each problem that only the setting has right, [..., problems]
        lost: that only the baseline has right, [..., problems]
        counts: all pairs, [..., problems]
    """
    value, stderr = clustered.ratio(gained - lost, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = counts.sum(-1)
        plus, minus = gained.sum(-1) / total, lost.sum(-1) / total
    return value, stderr, (plus, minus, clustered.effective(plus + minus - value**2, stderr, counts))


def _counts(pairs: PairedOutcomes) -> tuple[Array, Array, Array, Array]:
    """Of each problem: sum of differences, pairs, pairs gained, pairs lost."""
    found = pairs.difference
    gained, lost = (found > 0).sum(-1).astype(float), (found < 0).sum(-1).astype(float)
    return gained - lost, pairs.counts.astype(float), gained, lost
