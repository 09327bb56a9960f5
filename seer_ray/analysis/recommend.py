"""Which setting to take: the cheapest that keeps the accuracy, and how sure that is.

A setting keeps it if "it loses the margin or more" is rejected. With many settings the error rate is that of
any wrong one among all that are said to keep it, so that the cheapest of them may be taken: settings that
differ only in the budget are tested from the largest down until one fails, which costs nothing for their
number, and such families share the error rate (``multiple.sequences``). Where no budgets are compared this is
Holm's procedure. Fixed sequences and not Holm throughout, since a smaller budget that keeps what a larger one
loses would be a surprise, and the order is known before anything is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from seer_ray.analysis import estimates, multiple, pareto, sentences
from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.paired import (
    Difference,
    Drift,
    NonInferiority,
    difference,
    drift,
    inferiority,
    non_inferiority,
    pair,
)
from seer_ray.analysis.power import More, more
from seer_ray.analysis.racing import Decision
from seer_ray.analysis.racing import Verdict as Race
from seer_ray.analysis.runs import Contender
from seer_ray.analysis.speedup import Speedup, speedup
from seer_ray.results.speed import Speed

MARGIN = 0.02
CONFIDENCE = 0.95


class Keeps(StrEnum):
    """Whether a setting keeps the baseline's accuracy to within the margin."""

    YES = "keeps it"
    NO = "loses it"
    UNKNOWN = "not decided"


class Answer(StrEnum):
    TAKE = "take"
    NONE = "none keeps it"
    MORE = "not enough data"


@dataclass(frozen=True)
class Cost:
    """What a setting's chains cost. None: not measured."""

    attended: float | None
    """KV read by a chain, in tokens summed over its steps, layers and heads, on average."""
    attended_share: float | None
    """Of what dense attention would have read for the same chains."""
    seconds: float | None
    """Of the job's decoding time, a chain."""
    speed: Speed | None


@dataclass(frozen=True)
class Assessment:
    """One setting against the baseline."""

    name: str
    keeps: Keeps
    why: str
    accuracy: Estimate
    difference: Difference
    test: NonInferiority
    drift: Drift | None
    cost: Cost
    byte_bound: float | None
    """Available over attended KV: attention that is bound by the bytes of KV is at most so much faster."""
    speed: Speedup
    """Tokens per second over the baseline's, where it was measured, or why it is not told."""
    more: More | None
    """Data that would decide, if that is what lacks."""
    cautions: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Recommendation:
    answer: Answer
    choice: str | None
    """The setting to take; None: no setting but the baseline is known to do."""
    sentence: str
    rests_on: str
    baseline: str
    baseline_accuracy: Estimate
    baseline_cost: Cost
    margin: float
    confidence: float
    assessments: tuple[Assessment, ...]
    """In the order of the settings given."""
    front_attended: tuple[str, ...]
    """Settings and baseline that none beats at both accuracy and attended KV a chain, cheapest first."""
    front_seconds: tuple[str, ...]
    """The same with measured seconds a chain, of settings whose speed can be compared with the baseline's."""


def recommend(
    baseline: Contender,
    settings: Sequence[Contender],
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> Recommendation:
    """Compares settings with the baseline, and chooses.

    Args:
        baseline: usually dense
        settings: all others that were tried, aligned with it (``runs.load``). What racing decided stands:
            tests that know no peeking say nothing of samples that ended because of what they showed. Its
            error rate adds to that of the others.
        margin: accuracy that may be lost, a fraction above 0
        confidence: 1 - confidence is the chance that any setting is said to keep the accuracy and does not,
            and the same for losing it

    Raises:
        ValueError: no settings, or one that has no graded sample in common with the baseline.
    """
    if not settings:
        raise ValueError("nothing to compare with the baseline")
    alpha = 1 - confidence
    paired = {setting.name: pair(baseline.outcomes, setting.outcomes) for setting in settings}
    differences = {name: difference(pairs, confidence) for name, pairs in paired.items()}
    # Of those whose difference is no estimate there is nothing to test.
    open_ones = [one for one in settings if one.decided is None and not differences[one.name].exact]
    families = _families(open_ones)
    level = alpha / max(1, len(families))
    for name, pairs in paired.items():
        if not pairs.counts.any():
            raise ValueError(f"{name} and {baseline.name} have no graded sample in common")
    tests = {name: non_inferiority(pairs, margin, alpha) for name, pairs in paired.items()}
    kept = multiple.sequences({name: test.p_value for name, test in tests.items()}, families, alpha)
    inferior = {one.name: inferiority(paired[one.name], margin) for one in open_ones}
    lost = multiple.sequences(inferior, [[name] for name in inferior], alpha)
    assessments = []
    for setting in settings:
        name, pairs = setting.name, paired[setting.name]
        found = differences[name]
        keeps, why = _verdict(name, tests[name], name in kept, name in lost, setting.decided)
        if found.exact:
            keeps = Keeps.YES
            why = f"the tokens of {baseline.name} in all {found.pairs:,} pairs: dense attention decides each"
        assessments.append(
            _assess(
                baseline,
                setting,
                keeps,
                why,
                found,
                tests[name],
                more(pairs, found, margin, level) if keeps is Keeps.UNKNOWN else None,
                sentences.cautions(pairs, found, baseline.outcomes, setting.outcomes),
                drift(pairs, confidence),
                confidence,
            )
        )
    return _choose(baseline, assessments, margin, confidence)


def cost(setting: Contender) -> Cost:
    """What its chains cost."""
    outcomes = setting.outcomes
    chains = int((~np.isnan(outcomes.attended)).sum())
    seconds = (
        float(np.nanmean(outcomes.tokens)) / setting.speed.tokens_per_s if setting.speed and chains else None
    )
    return Cost(
        attended=float(np.nansum(outcomes.attended) / chains) if chains else None,
        attended_share=outcomes.attended_share,
        seconds=seconds,
        speed=setting.speed,
    )


def _families(settings: Sequence[Contender]) -> list[list[str]]:
    """Names of settings that differ only in the budget, the largest first."""
    families: dict[tuple[tuple[str, str], ...], list[Contender]] = {}
    for setting in settings:
        families.setdefault(setting.family, []).append(setting)
    return [
        [setting.name for setting in sorted(family, key=lambda one: -(one.budget or 0))]
        for family in families.values()
    ]


def _verdict(
    name: str, test: NonInferiority, kept: bool, lost: bool, raced: Decision | None
) -> tuple[Keeps, str]:
    if raced is not None:
        return (Keeps.YES if raced.verdict is Race.GOOD else Keeps.NO), f"racing stopped it: {raced.why}"
    points = f"{100 * test.margin:g} points"
    if kept:
        return Keeps.YES, f"loses less than {points} (p = {test.p_value:.2g})"
    if lost:
        return Keeps.NO, f"loses more than {points}"
    if test.shown:
        return Keeps.UNKNOWN, (
            f"p = {test.p_value:.2g} alone would do, but not beside the others: a larger budget "
            "is not decided, or the error rate is shared"
        )
    return Keeps.UNKNOWN, f"not shown to lose less than {points} (p = {test.p_value:.2g})"


def _assess(
    baseline: Contender,
    setting: Contender,
    keeps: Keeps,
    why: str,
    found: Difference,
    test: NonInferiority,
    lacking: More | None,
    cautions: tuple[str, ...],
    length: Drift | None,
    confidence: float,
) -> Assessment:
    price = cost(setting)
    speed = speedup(setting.speed, baseline.speed, setting.job == baseline.job, confidence)
    accuracy = estimates.accuracy(setting.outcomes, confidence)
    assert accuracy is not None
    return Assessment(
        name=setting.name,
        keeps=keeps,
        why=why,
        accuracy=accuracy,
        difference=found,
        test=test,
        drift=length,
        cost=price,
        byte_bound=1 / price.attended_share if price.attended_share else None,
        speed=speed,
        more=lacking,
        cautions=cautions,
        sentence=sentences.sentence(setting.name, baseline.name, found, price.attended_share, speed, length),
    )


def _choose(
    baseline: Contender, assessments: Sequence[Assessment], margin: float, confidence: float
) -> Recommendation:
    accuracy, price = estimates.accuracy(baseline.outcomes, confidence), cost(baseline)
    assert accuracy is not None
    by_cost = sorted(assessments, key=_attended)
    keeping = [one for one in by_cost if one.keeps is Keeps.YES]
    undecided = [one for one in by_cost if one.keeps is Keeps.UNKNOWN]
    points = f"{100 * margin:g} points"
    if keeping:
        best, answer = keeping[0], Answer.TAKE
        text = f"Take {best.sentence}."
        if undecided and _attended(undecided[0]) < _attended(best):
            text += f" {sentences.undecided(undecided[0].name, undecided[0].more)}"
    elif hopeful := [one for one in undecided if one.more]:
        best, answer = min(hopeful, key=lambda one: one.more.problems if one.more else 0), Answer.MORE
        text = f"Not enough data to say that a setting loses less than {points}. "
        text += f"The nearest to it: {best.sentence}. {sentences.undecided(best.name, best.more)}"
    else:
        best, answer = max(assessments, key=lambda one: one.difference.value), Answer.NONE
        shown = "is shown to lose less" if undecided else "loses less"
        text = f"None keeps the accuracy: no setting {shown} than {points}. The nearest: {best.sentence}."
    accuracies = {baseline.name: accuracy.value} | {one.name: one.accuracy.value for one in assessments}
    attended = {baseline.name: price.attended} | {one.name: one.cost.attended for one in assessments}
    seconds = {baseline.name: price.seconds}
    seconds |= {one.name: one.cost.seconds for one in assessments if one.speed.value is not None}
    return Recommendation(
        answer=answer,
        choice=best.name if answer is Answer.TAKE else None,
        sentence=text,
        rests_on=sentences.rests_on(
            best.difference, best.why, best.speed, best.cautions, len(assessments), confidence
        ),
        baseline=baseline.name,
        baseline_accuracy=accuracy,
        baseline_cost=price,
        margin=margin,
        confidence=confidence,
        assessments=tuple(assessments),
        front_attended=tuple(pareto.front(attended, accuracies)),
        front_seconds=tuple(pareto.front(seconds, accuracies)),
    )


def _attended(one: Assessment) -> float:
    return one.cost.attended if one.cost.attended is not None else float("inf")
