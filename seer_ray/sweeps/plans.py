"""The layer plans of a sweep's points, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import PlanConfig, SelectorConfig
from seer_ray.models.allocation import allocation_of
from seer_ray.models.catalog import check_engine
from seer_ray.models.load import load_config
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.plan import LayerPlan, resolve_plan
from seer_ray.sweeps.points import Point


class Plans:
    """What each point comes to in the layers of its model.

    Attributes:
        distinct: The points that are to be run: of those that decode alike, the first.
        codes: Id of the plan, which is readable, by slug.
        same: Slug of a point that is left out -> slug of the one that is run for it.
        failed: Slug -> why the model cannot have it.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.distinct: list[Point] = []
        self.codes: dict[str, str] = {}
        self.same: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._models: dict[str, PreTrainedConfig | ConfigError] = {}
        known: dict[tuple[str, str], str] = {}
        for point in points:
            try:
                plan = self._resolve(point)
            except ConfigError as error:
                self.failed[point.slug] = str(error)
                self.distinct.append(point)
                continue
            key = (plan.digest, _rest(point))
            if key in known:
                self.same[point.slug] = known[key]
                continue
            known[key] = point.slug
            self.codes[point.slug] = plan.id
            self.distinct.append(point)

    def _resolve(self, point: Point) -> LayerPlan:
        model = point.config.model
        if (key := repr(model)) not in self._models:
            try:
                self._models[key] = load_config(model)
            except ConfigError as error:
                self._models[key] = error
        hf_config = self._models[key]
        if isinstance(hf_config, ConfigError):
            raise hf_config
        check_engine(hf_config, point.config.engine)
        config = point.config
        mixers, window = layer_mixers(hf_config), getattr(hf_config, "sliding_window", None)
        return resolve_plan(
            config.selector,
            mixers,
            config.engine.block_size,
            config.plan,
            window,
            allocation=allocation_of(config.selector, config.model.gates, config.model.prefill_gates),
        )


def _rest(point: Point) -> str:
    """All options but those that the layers' plan is made of."""
    return repr(replace(point.config, name=None, selector=SelectorConfig(), plan=PlanConfig()))
