"""Runs and sweeps beside each other, computed from their committed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seer_ray.analysis import estimates, metrics
from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.metrics import Value
from seer_ray.analysis.paired import pair
from seer_ray.analysis.recommend import CONFIDENCE, MARGIN, Assessment, Recommendation, recommend
from seer_ray.analysis.runs import Contender, baseline_of, expand, load
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
        """Over the baseline, where one job measured both."""
        return self.assessment.speedup if self.assessment and self.assessment.same_job else None


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
    uris: Sequence[str], baseline: str | None = None, margin: float = MARGIN, confidence: float = CONFIDENCE
) -> Recommendation:
    """Runs and the points of sweeps that are there already, against one of them.

    Args:
        uris: of run and sweep folders
        baseline: name or folder of what the others are compared with; None: the dense one, where there is one
            and not more, else the first given
        margin: accuracy that may be lost, a fraction above 0 and below 1
        confidence: in (0, 1)

    Raises:
        ConfigError: nothing to compare, or not comparable.
    """
    check_claims(margin, confidence)
    settings = load(uris)
    if len(settings) < 2:
        raise ConfigError(f"{', '.join(uris)}: one run alone; name two or more, or a sweep")
    chosen = _named(settings, baseline) if baseline else baseline_of(settings) or _first(settings, uris)
    others = [setting for setting in settings if setting is not chosen]
    try:
        return recommend(chosen, others, margin, confidence)
    except ValueError as error:
        raise ConfigError(f"cannot be compared: {error}") from None


def check_claims(margin: float, confidence: float) -> None:
    """Raises ConfigError: a margin or a confidence, as fractions, with which nothing can be claimed."""
    if not 0 < margin < 1:
        raise ConfigError(f"--margin {100 * margin:g}: must be above 0 and below 100 points")
    if not 0.5 < confidence < 1:
        raise ConfigError(f"--confidence {100 * confidence:g}: must be above 50 and below 100 percent")


def _compared(setting: Contender, assessment: Assessment | None, confidence: float) -> ComparedRun:
    folder = RunFolder.view(setting.folder)
    rows = folder.read((*metrics.COLUMNS, "attended_kv_layers"))
    return ComparedRun(
        setting=setting,
        folder=folder,
        accuracy=estimates.accuracy(setting.outcomes, confidence),
        metrics=metrics.summarise(rows, setting.speed),
        layers=attended_by_layer(rows),
        assessment=assessment,
    )


def attended_by_layer(rows: pa.Table) -> tuple[float, ...] | None:
    """Attended over available KV of each layer, over the completions that count by layer. None: no such."""
    counted = rows.filter(pc.and_(rows["attended_kv_layers"].is_valid(), rows["error"].is_null()))
    layers = counted["attended_kv_layers"].to_pylist()
    if not layers or len({len(row) for row in layers}) > 1:
        return None
    available = sum(counted["available_kv"].to_pylist()) / len(layers[0])
    return tuple((np.array(layers).sum(0) / available).tolist()) if available else None


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
