"""What a report says of its settings: every figure once, computed from the committed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seer_ray.analysis import estimates, runs
from seer_ray.analysis.estimates import Estimate, Lengths
from seer_ray.analysis.paired import pair
from seer_ray.analysis.recommend import CONFIDENCE, MARGIN, Assessment, Recommendation, recommend
from seer_ray.analysis.runs import Contender
from seer_ray.config.errors import ConfigError
from seer_ray.report import style
from seer_ray.results.folder import RunFolder


@dataclass(frozen=True)
class Standing:
    """One setting. None: not known."""

    setting: Contender
    folder: RunFolder
    accuracy: Estimate | None
    no_answer: Estimate | None
    truncation: Estimate | None
    lengths: Lengths | None
    attended_per_step: float | None
    """KV tokens per layer, KV head and step."""
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
    def colour(self) -> str:
        return style.colour(self.selector)

    @property
    def share(self) -> float | None:
        """Attended over available KV."""
        return self.setting.outcomes.attended_share

    @property
    def speedup(self) -> float | None:
        """Over the baseline, where one job measured both."""
        return self.assessment.speedup if self.assessment and self.assessment.same_job else None


@dataclass(frozen=True)
class Comparison:
    """All that a report compares."""

    standings: tuple[Standing, ...]
    recommendations: tuple[Recommendation, ...]
    """One a baseline; none without a dense run of the same problems."""
    margin: float
    confidence: float

    @property
    def problems(self) -> tuple[str, ...]:
        return self.standings[0].setting.outcomes.problems


def compare(uris: Sequence[str], margin: float = MARGIN, confidence: float = CONFIDENCE) -> Comparison:
    """Runs and sweeps beside each other, each setting against the dense one that it goes with.

    Args:
        uris: of run and sweep folders
        margin: accuracy that may be lost, a share
        confidence: of intervals and claims

    Raises:
        ConfigError: a folder cannot be read, holds nothing, or they are not about the same problems.
    """
    check_claims(margin, confidence)
    settings = [setting for setting in runs.load(uris) if setting.outcomes.present.any()]
    if not settings:
        raise ConfigError(f"{uris[0]}: has no rows yet; give the run's command again to go on with it")
    groups: dict[str, list[Contender]] = {}
    baselines = {setting.name: setting for setting in settings if setting.dense}
    for setting in settings:
        baseline = None if setting.dense else runs.baseline_of(settings, setting)
        if baseline is not None and pair(baseline.outcomes, setting.outcomes).counts.any():
            groups.setdefault(baseline.name, []).append(setting)
    recommendations = [
        recommend(baselines[name], group, margin, confidence) for name, group in groups.items()
    ]
    assessed = {a.name: a for recommendation in recommendations for a in recommendation.assessments}
    standings = [_stand(setting, assessed.get(setting.name), confidence) for setting in settings]
    return Comparison(tuple(standings), tuple(recommendations), margin, confidence)


def check_claims(margin: float, confidence: float) -> None:
    """Raises ConfigError: a margin or a confidence, as shares, with which nothing can be claimed."""
    if not 0 < margin < 1:
        raise ConfigError(f"--margin {100 * margin:g}: must be above 0 and below 100 points")
    if not 0.5 < confidence < 1:
        raise ConfigError(f"--confidence {100 * confidence:g}: must be above 50 and below 100 percent")


def _stand(setting: Contender, assessment: Assessment | None, confidence: float) -> Standing:
    folder = RunFolder.view(setting.folder)
    metrics = folder.read_json("metrics.json") or {}
    return Standing(
        setting=setting,
        folder=folder,
        accuracy=estimates.accuracy(setting.outcomes, confidence),
        no_answer=estimates.no_answer(setting.outcomes, confidence),
        truncation=estimates.truncation(setting.outcomes, confidence),
        lengths=estimates.lengths(setting.outcomes),
        attended_per_step=metrics.get("kv/mean_attended"),
        layers=layer_shares(folder.read(["attended_kv_layers", "available_kv", "error"])),
        assessment=assessment,
    )


def layer_shares(rows: pa.Table) -> tuple[float, ...] | None:
    """Attended over available KV of each layer, over the completions that count by layer. None: no such."""
    counted = rows.filter(pc.and_(rows["attended_kv_layers"].is_valid(), rows["error"].is_null()))
    layers = counted["attended_kv_layers"].to_pylist()
    if not layers or len({len(row) for row in layers}) > 1:
        return None
    available = sum(counted["available_kv"].to_pylist()) / len(layers[0])
    return tuple((np.array(layers).sum(0) / available).tolist()) if available else None
