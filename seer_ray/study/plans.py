"""Whether layer plans can be compared: at equal reads, each with the anchors that its ratio says."""

from __future__ import annotations

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.works import is_dense, layout_of, ratio_of
from seer_ray.models.load import load_config
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.plan import SELECTING
from seer_ray.sweeps.plans import Plans
from seer_ray.sweeps.points import points_of


def check_plans(config: SweepConfig) -> None:
    """Of a sweep that is spelled out; begins nothing.

    Raises:
        ConfigError: a point says nothing of equal reads, leaves no anchor, or the model cannot have it.
    """
    points = points_of(config)
    for point in points:
        _check_point(point.config)
    for slug, why in Plans(points).failed.items():
        raise ConfigError(f"{slug}: {why}")


def _check_point(config: RunConfig) -> None:
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
