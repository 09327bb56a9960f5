"""Small models from scratch, alike in all but how their layers mix tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.study import StudyTrainConfig
from seer_ray.driver.frame import Frame
from seer_ray.results.job import JobFolder
from seer_ray.results.tables import write_table
from seer_ray.status.live import MeasureLive, Reporter
from seer_ray.study import claims, grid, outcomes, trainer
from seer_ray.study.frame import Kind, StudyPlan, StudySummary, plan_study, studied
from seer_ray.training.pretrain.model import weights_of
from seer_ray.training.pretrain.objective import tokenizer_of


@dataclass
class TrainedSummary(StudySummary):
    """What a grid of trained models came to."""

    seeds: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)
    """Of these and the following see ``study.outcomes``."""
    pareto: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    """See ``study.claims``."""


def main(
    config: StudyTrainConfig, reporter: Reporter[MeasureLive, TrainedSummary] | None = None
) -> TrainedSummary:
    """Runs the study to its end; see ``seer_ray.study.frame.studied``."""
    return studied(config, KIND, reporter)


def plan(config: StudyTrainConfig) -> StudyPlan:
    """What the job would do; makes no weights and reads no data."""
    about = []
    for name, settings in grid.learned(config).items():
        weights = weights_of(settings.architecture, settings.plan, tokenizer_of(settings))
        train, what = settings.train, f"{name}: " if name else ""
        tokens = train.steps * train.batch_tokens
        about.append(f"{what}models of {weights:,} weights, {train.steps:,} steps, {tokens:,} tokens each")
    return plan_study(config, KIND, about)


def _summarise(
    frame: Frame[StudyTrainConfig, JobFolder], found: grid.Trained, facts: dict[str, Any]
) -> tuple[TrainedSummary, dict[str, float]]:
    study = frame.config.study
    summary = TrainedSummary(
        **facts,
        seeds=study.seeds,
        models=outcomes.model_table(found),
        pareto=outcomes.pareto_table(found, study.lengths),
        claims=claims.claims(found),
    )
    for name, rows in (
        ("measures", outcomes.cell_table(found)),
        ("models", summary.models),
        ("pareto", summary.pareto),
        ("claims", summary.claims),
    ):
        summary.files += write_table(frame.folder.store, name, rows)
    named = {*outcomes.headline_names(found)}
    metrics = {
        f"{row['learn'] or 'learned'}/{row['name']}/{row['mixer']}/{row['layout']}": row["mean"]
        for row in summary.models
        if (row["learn"], row["name"]) in named
    }
    return summary, {name.replace(":", "_to_").replace(" ", "_"): value for name, value in metrics.items()}


KIND = Kind(
    TrainedSummary,
    grid.stages,
    grid.expected,
    trainer.build,
    grid.grid_contents,
    grid.dataset,
    _summarise,
)
