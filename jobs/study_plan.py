"""Dense, gated and window layers of a pretrained model at equal reads: a sweep, with all that a sweep has."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.study import StudyPlanConfig
from seer_ray.config.works import is_dense, layout_of, ratio_of
from seer_ray.jobs import sweep
from seer_ray.status.live import Reporter, SweepLive, SweepSummary
from seer_ray.sweeps.points import points_of

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
    """The sweep that it is, if all of its points read alike and have the anchors that their ratio says."""
    # Brings transformers along.
    from seer_ray.sweeps.plans import Plans

    made = SweepConfig(**{item.name: getattr(config, item.name) for item in fields(SweepConfig)})
    points = points_of(made)
    for point in points:
        _check_point(point.config)
    for slug, why in Plans(points).failed.items():
        raise ConfigError(f"{slug}: {why}")
    return made


def _check_point(config: RunConfig) -> None:
    from seer_ray.models.load import load_config
    from seer_ray.models.mixers import layer_mixers
    from seer_ray.models.plan import SELECTING

    plan = config.plan
    if is_dense(config.selector, plan):
        return
    if plan.equal_at is None:
        raise ConfigError(
            "plan.equal_at: not set; at which length, prompt and chain, steps of all plans shall read alike, "
            "such as plan.equal_at=1088 selector.budget=640"
        )
    if layout_of(plan) != "ratio":
        return
    layers = sum(mixer in SELECTING for mixer in layer_mixers(load_config(config.model)))
    ratio = ratio_of(plan)
    if ratio is not None and ratio + 1 > layers:
        raise ConfigError(
            f"plan.ratio={ratio}: leaves no anchor: it takes {ratio + 1} layers with full attention, and the "
            f"model has {layers}; take {layers - 1} at most, or inf for no anchor"
        )
