"""What a plan's layout has each layer do: which blocks those of a checkpoint with full attention read, how
those of a model to be trained mix tokens."""

from __future__ import annotations

from collections.abc import Sequence

from seer_ray.config.errors import ConfigError
from seer_ray.config.layouts import LAYOUTS, anchors_of
from seer_ray.config.options import PlanConfig, SelectorConfig
from seer_ray.config.selecting import LayoutConfig
from seer_ray.config.training import MixerPlanConfig
from seer_ray.config.works import Work, anchor_at, layout_of, ratio_of, read_work
from seer_ray.models.mixers import check_trained


def lay_out(selector: SelectorConfig, plan: PlanConfig, layers: Sequence[int]) -> dict[int, Work]:
    """The work of each of ``layers``: those of a checkpoint that have full attention, in order.

    Raises:
        ConfigError: these layers cannot have the layout.
    """
    kind = layout_of(plan)
    if kind is None:
        return dict.fromkeys(layers, Work(selector.name))
    option, count = f"plan.{kind}={getattr(plan, kind)}", len(layers)
    if not layers:
        raise ConfigError(
            f"{option}: this model has no layer with full attention, and others stay as they are"
        )
    if kind == "repeat":
        if len(plan.repeat) > count:
            raise ConfigError(
                f"{option}: is for {len(plan.repeat)} layers; the model has {count} with full attention"
            )
        pattern = [read_work(text, "plan.repeat", selector) for text in plan.repeat]
        return {layer: pattern[place % len(pattern)] for place, layer in enumerate(layers)}
    if kind == "named":
        assert plan.named is not None
        anchors = {layers[place] for place in anchors_of(plan.named, count)}
    elif kind == "ratio":
        anchors = {layers[place] for place in _spaced(plan, count)}
    else:
        anchors = _ranked(plan, layers, option)
    cheap, anchor = (read_work(getattr(plan, name), f"plan.{name}", selector) for name in ("cheap", "anchor"))
    return {layer: anchor if layer in anchors else cheap for layer in layers}


def lay_mixers(plan: MixerPlanConfig, layers: int) -> list[str]:
    """The mixer of each layer of a model to be trained, by name.

    Raises:
        ConfigError: a mixer that is not known, so many layers cannot have the layout, or it is malformed.
    """
    kind = layout_of(plan)
    said = [("anchor", plan.anchor), ("cheap", plan.cheap), *(("repeat", name) for name in plan.repeat)]
    for field, name in said:
        if name is not None:
            check_trained(name, f"plan.{field}={name}")
    if kind in (None, "repeat") and plan.cheap is not None:
        raise ConfigError(f"plan.cheap={plan.cheap}: means nothing without plan.ratio or plan.named")
    if kind is None:
        return [plan.anchor] * layers
    option = f"plan.{kind}={getattr(plan, kind)}"
    if kind == "repeat":
        if len(plan.repeat) > layers:
            raise ConfigError(f"{option}: is for {len(plan.repeat)} layers; architecture.layers={layers}")
        return [plan.repeat[layer % len(plan.repeat)] for layer in range(layers)]
    if plan.cheap is None:
        raise ConfigError(f"{option}: needs plan.cheap, the mixer of the layers that are no anchors")
    if kind == "named":
        assert plan.named is not None
        if plan.named != "all_cheap" and not list(LAYOUTS[plan.named](layers)):
            raise ConfigError(f"{option}: leaves no anchor in architecture.layers={layers}; take more layers")
        anchors = anchors_of(plan.named, layers)
    else:
        ratio = ratio_of(plan)
        if ratio is not None and ratio >= layers:
            raise ConfigError(
                f"{option}: needs {ratio + 1} layers, architecture.layers={layers}; lower it, or say inf for "
                "no anchor"
            )
        anchors = frozenset(_spaced(plan, layers))
    return [plan.anchor if layer in anchors else plan.cheap for layer in range(layers)]


def _spaced(plan: LayoutConfig, count: int) -> set[int]:
    """Places of anchors: one in each whole block of it and ``plan.ratio`` cheap layers, none in what is left
    over, and at least one in all unless none are meant."""
    ratio = ratio_of(plan)
    if ratio is None:
        return set()
    place, block = anchor_at(plan, ratio), ratio + 1
    return {start + place for start in range(0, count - ratio, block)} or {min(place, count - 1)}


def _ranked(plan: PlanConfig, layers: Sequence[int], option: str) -> set[int]:
    if other := [layer for layer in plan.ranking if layer not in layers]:
        raise ConfigError(
            f"plan.ranking={plan.ranking}: this model has no layer {other[0]} with full attention; give a "
            "ranking of its own layers"
        )
    assert plan.anchors is not None
    if plan.anchors > len(plan.ranking):
        raise ConfigError(f"{option}: plan.ranking has {len(plan.ranking)} layers")
    return set(plan.ranking[: plan.anchors])


def paid_budget(selector: SelectorConfig, plan: PlanConfig, chosen: Sequence[Work], block_size: int) -> int:
    """Tokens for each layer without a budget of its own, such that a step at ``plan.equal_at`` reads as much
    as if every layer had ``selector.budget``.

    Args:
        chosen: the work of every layer with full attention.
        block_size: tokens a block.

    Raises:
        ConfigError: there is too little left, or nobody who could pay.
    """
    assert plan.equal_at is not None
    own = [plan.equal_at if work.selector == "dense" else work.budget for work in chosen]
    fixed = [min(budget, plan.equal_at) for budget in own if budget is not None]
    payers, whole = len(chosen) - len(fixed), selector.budget * len(chosen)
    if not payers:
        if all(work.selector == "dense" for work in chosen):
            return selector.budget  # nothing has a budget: one end of a sweep over ratios
        raise ConfigError(
            f"plan.equal_at={plan.equal_at}: no layer is without a budget of its own; leave that of "
            "plan.cheap out"
        )
    budget = round((whole - sum(fixed)) / payers / block_size) * block_size
    if budget < 2 * block_size:
        raise ConfigError(
            f"plan.equal_at={plan.equal_at}: {len(fixed)} of {len(chosen)} layers alone read {sum(fixed):,} "
            f"of the {whole:,} tokens that selector.budget={selector.budget} comes to; take fewer anchors "
            "or a larger budget"
        )
    return min(budget, plan.equal_at)
