"""Runs and sweeps beside each other, computed from their committed rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seer_ray.analysis import estimates, groups, metrics
from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.metrics import Value
from seer_ray.analysis.paired import Difference, difference, pair
from seer_ray.analysis.recommend import CONFIDENCE, MARGIN, Assessment, Recommendation, recommend
from seer_ray.analysis.runs import Contender, baseline_of, expand, first_samples, load
from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.results.folder import RunFolder


@dataclass(frozen=True)
class ComparedRun:
    """One setting. None: not known."""

    setting: Contender
    folder: RunFolder
    accuracy: Estimate | None
    metrics: dict[str, Value]
    """By name, see ``analysis.metrics``."""
    layers: tuple[float, ...] | None
    """Attended over available KV of each layer."""
    assessment: Assessment | None
    """Against its baseline; None for a baseline, and where there is none."""

    @property
    def name(self) -> str:
        return self.setting.name

    @property
    def selector(self) -> str:
        return "dense" if self.setting.dense else str(self.setting.options["selector.name"])

    @property
    def attended_share(self) -> float | None:
        """Attended over available KV."""
        return self.setting.outcomes.attended_share

    @property
    def speedup(self) -> float | None:
        """Over the baseline, where that was measured."""
        return self.assessment.speed.value if self.assessment else None


@dataclass(frozen=True)
class Comparison:
    """Runs of the same problems."""

    runs: tuple[ComparedRun, ...]
    recommendations: tuple[Recommendation, ...]
    """One a baseline; none without a dense run of the same problems."""
    margin: float
    confidence: float

    @property
    def problems(self) -> tuple[str, ...]:
        return self.runs[0].setting.outcomes.problems


def compare(uris: Sequence[str], margin: float = MARGIN, confidence: float = CONFIDENCE) -> Comparison:
    """Runs and sweeps beside each other, each setting against the dense one that it goes with.

    Args:
        uris: of run and sweep folders
        margin: accuracy that may be lost, a fraction
        confidence: of intervals and claims

    Raises:
        ConfigError: a folder cannot be read, holds nothing, or they are not about the same problems.
    """
    check_claims(margin, confidence)
    settings = [setting for setting in load(uris) if setting.outcomes.present.any()]
    if not settings:
        raise ConfigError(f"{uris[0]}: has no rows yet; give the run's command again to go on with it")
    _refuse_strangers(settings)
    groups: dict[str, list[Contender]] = {}
    baselines = {setting.name: setting for setting in settings if setting.dense}
    for setting in settings:
        baseline = None if setting.dense else baseline_of(settings, setting)
        if baseline is not None and pair(baseline.outcomes, setting.outcomes).counts.any():
            groups.setdefault(baseline.name, []).append(setting)
    recommendations = [
        recommend(baselines[name], group, margin, confidence) for name, group in groups.items()
    ]
    assessed = {a.name: a for recommendation in recommendations for a in recommendation.assessments}
    runs = [_compared(setting, assessed.get(setting.name), confidence) for setting in settings]
    return Comparison(tuple(runs), tuple(recommendations), margin, confidence)


def _refuse_strangers(settings: Sequence[Contender]) -> None:
    """Raises ConfigError: there are settings that share no problem with any of the others."""
    rows = [setting.outcomes.present.any(1) for setting in settings]
    shared, left = rows[0], list(range(1, len(rows)))
    while near := [place for place in left if (rows[place] & shared).any()]:
        shared = np.logical_or.reduce([shared, *(rows[place] for place in near)])
        left = [place for place in left if place not in near]
    if left:
        raise ConfigError(
            f"{settings[left[0]].folder}: has no problem in common with {settings[0].folder}; "
            "give each a report of its own"
        )


def against(
    uris: Sequence[str],
    baseline: str | None = None,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
    where: Mapping[str, str] | None = None,
) -> Recommendation:
    """Runs and the points of sweeps that are there already, against one of them.

    Args:
        uris: of run and sweep folders
        baseline: name or folder of what the others are compared with; None: the dense one, where there is one
            and not more, else the first given
        margin: accuracy that may be lost, a fraction above 0 and below 1
        confidence: in (0, 1)
        where: only rows with these values in columns that are kept; None: all

    Raises:
        ConfigError: nothing to compare, or not comparable.
    """
    check_claims(margin, confidence)
    chosen, others = _told_apart(load(uris, where), uris, baseline)
    try:
        return recommend(chosen, others, margin, confidence)
    except ValueError as error:
        raise ConfigError(f"cannot be compared: {error}") from None


@dataclass(frozen=True)
class GroupDifferences:
    """Settings against their baseline on the problems with one value in a column."""

    value: str
    problems: int
    baseline: Estimate
    differences: dict[str, Difference]
    """By the setting's name."""


def against_by(
    uris: Sequence[str],
    column: str,
    baseline: str | None = None,
    confidence: float = CONFIDENCE,
    where: Mapping[str, str] | None = None,
) -> tuple[str, list[GroupDifferences]]:
    """The baseline's name, and by the values of a column that is kept what the others change.

    Intervals are those of each group alone, not of all at once.

    Raises:
        ConfigError: nothing to compare, not comparable, or the column is not kept.
    """
    check_claims(MARGIN, confidence)
    chosen, others = _told_apart(load(uris, where), uris, baseline)
    table = RunFolder.view(chosen.folder).read(("problem_id", "inputs"))
    known = dict(zip(table["problem_id"].to_pylist(), groups.values_of(table, column), strict=True))
    values = np.array([known.get(problem, "") for problem in chosen.outcomes.problems])
    found = []
    for value in sorted(set(known.values())):
        mine = chosen.outcomes.of(values == value)
        right = estimates.accuracy(mine, confidence)
        if right is None:
            continue
        pairs = {one.name: pair(mine, one.outcomes.of(values == value)) for one in others}
        differences = {
            name: difference(each, confidence) for name, each in pairs.items() if each.counts.any()
        }
        found.append(GroupDifferences(value, right.problems, right, differences))
    return chosen.name, found


def _told_apart(
    settings: list[Contender], uris: Sequence[str], baseline: str | None
) -> tuple[Contender, list[Contender]]:
    """What the others are compared with, and the others."""
    if len(settings) < 2:
        raise ConfigError(f"{', '.join(uris)}: one run alone; name two or more, or a sweep")
    chosen = _named(settings, baseline) if baseline else baseline_of(settings) or _first(settings, uris)
    return chosen, [setting for setting in settings if setting is not chosen]


def check_claims(margin: float, confidence: float) -> None:
    """Raises ConfigError: a margin or a confidence, as fractions, with which nothing can be claimed."""
    if not 0 < margin < 1:
        raise ConfigError(f"--margin {100 * margin:g}: must be above 0 and below 100 points")
    if not 0.5 < confidence < 1:
        raise ConfigError(f"--confidence {100 * confidence:g}: must be above 50 and below 100 percent")


def _compared(setting: Contender, assessment: Assessment | None, confidence: float) -> ComparedRun:
    folder = RunFolder.view(setting.folder)
    return ComparedRun(
        setting=setting,
        folder=folder,
        accuracy=estimates.accuracy(setting.outcomes, confidence),
        metrics=metrics.summarise(
            folder.stream(metrics.COLUMNS), setting.speed, first=first_samples(setting.options)
        ),
        layers=attended_by_layer(folder.stream(BY_LAYER)),
        assessment=assessment,
    )


BY_LAYER = ("attended_kv_layers", "available_kv", "error")
"""What is read of completions for ``attended_by_layer``."""


def attended_by_layer(batches: Iterable[pa.RecordBatch]) -> tuple[float, ...] | None:
    """Attended over available KV of each layer, over the completions that count by layer. None: no such."""
    attended, available = None, 0
    for batch in batches:
        counted = batch.filter(pc.and_(batch["attended_kv_layers"].is_valid(), batch["error"].is_null()))
        layers = counted["attended_kv_layers"].to_pylist()
        if not layers:
            continue
        attended = attended if attended is not None else np.zeros(len(layers[0]))
        if any(len(row) != len(attended) for row in layers):
            return None
        attended += np.array(layers).sum(0)
        available += sum(counted["available_kv"].to_pylist())
    if attended is None or not available:
        return None
    return tuple((attended / (available / len(attended))).tolist())


def _first(runs: Sequence[Contender], uris: Sequence[str]) -> Contender:
    place = expand(uris)[0][0]
    return next(run for run in runs if run.folder == place)


def _named(runs: Sequence[Contender], name: str) -> Contender:
    """By its short name, its folder, or the last part of that."""
    found = [
        run
        for run in runs
        if name.rstrip("/") in (run.name, run.folder.rstrip("/"), run.folder.rstrip("/").rpartition("/")[2])
    ]
    if len(found) != 1:
        names = [run.name for run in runs]
        raise ConfigError(f"--baseline {name}: must be one of {', '.join(names)}{did_you_mean(name, names)}")
    return found[0]
