"""Dense, gated and window layers of a pretrained model at equal reads: a sweep, with all that a sweep has."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from seer_ray.config.options import SweepConfig
from seer_ray.config.study import StudyPlanConfig
from seer_ray.jobs import sweep
from seer_ray.status.live import Reporter, SweepLive, SweepSummary

if TYPE_CHECKING:
    from seer_ray.sweeps.estimate import Estimate


def main(config: StudyPlanConfig, reporter: Reporter[SweepLive, SweepSummary] | None = None) -> SweepSummary:
    """Runs all points to their ends; see ``seer_ray.jobs.sweep``.

    Raises:
        ConfigError: a point is no plan of the model's layers at equal reads. Nothing is begun.
    """
    return sweep.main(_checked(config), reporter)


def plan(config: StudyPlanConfig) -> Estimate:
    """What all points would cost; begins nothing."""
    return sweep.plan(_checked(config))


def _checked(config: StudyPlanConfig) -> SweepConfig:
    # Brings transformers along.
    from seer_ray.study.plans import check_plans

    made = SweepConfig(**{item.name: getattr(config, item.name) for item in fields(SweepConfig)})
    made.name = config.name
    check_plans(made)
    return made
