"""What a layer does, in the words of a plan: ``gated``, ``dense``, or a selector, ``window:1024``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import PlanConfig, SelectorConfig
from seer_ray.config.selecting import LayoutConfig, PrefillConfig
from seer_ray.config.selectors import SELECTORS, traits_of

GATED = "gated"
"""What the run's ``selector`` says."""


class Work(NamedTuple):
    """Which blocks a layer reads, and how many."""

    selector: str
    budget: int | None = None
    """In tokens; None: ``selector.budget``."""


def read_work(text: str, option: str, selector: SelectorConfig) -> Work:
    """``window:1024`` -> ``Work("window", 1024)``.

    Args:
        text: what a layer does.
        option: where it stands.
        selector: the run's, which ``gated`` is.

    Raises:
        ConfigError: nothing that a layer of a checkpoint can do.
    """
    match = re.fullmatch(r"(\w+|[\w.]+:[A-Za-z_]\w*)(?::(\d+))?", text)
    name, budget = (match[1], match[2]) if match else (text, None)
    known = (GATED, *SELECTORS)
    if name not in known and ":" not in name:
        raise ConfigError(
            f"{option}={text}: must be one of {', '.join(known)}, with a budget of its own if it has one, "
            f"such as window:1024 (layers keep the mixers of their checkpoint){did_you_mean(name, known)}"
        )
    if name == "dense" and budget:
        raise ConfigError(f"{option}={text}: dense reads everything; leave :{budget} out")
    chosen = selector.name if name == GATED else name
    traits_of(chosen, option)
    return Work(chosen, int(budget) if budget and chosen != "dense" else None)


def layout_of(plan: LayoutConfig) -> str | None:
    """The option that says which layers are anchors; None: there is no layout.

    Raises:
        ConfigError: several do.
    """
    said = [
        name
        for name, given in (
            ("ratio", plan.ratio is not None),
            ("repeat", bool(plan.repeat)),
            ("named", plan.named is not None),
            ("anchors", getattr(plan, "anchors", None) is not None),
        )
        if given
    ]
    if len(said) > 1:
        raise ConfigError(
            f"plan.{said[1]}={getattr(plan, said[1])}: plan.{said[0]} is given as well; leave one of them out"
        )
    return said[0] if said else None


def ratio_of(plan: LayoutConfig) -> int | None:
    """``plan.ratio``, of a plan that has one; None: no anchors at all.

    Raises:
        ConfigError: neither a whole number nor inf.
    """
    if plan.ratio == "inf":
        return None
    if not re.fullmatch(r"\d+", str(plan.ratio)):
        raise ConfigError(f"plan.ratio={plan.ratio}: must be a whole number, or inf for no anchor")
    return int(str(plan.ratio))


def anchor_at(plan: LayoutConfig, ratio: int) -> int:
    """Where in a block of ``ratio + 1`` layers the anchor is.

    Raises:
        ConfigError: not in the block.
    """
    ends = {"first": 0, "last": ratio}
    if plan.phase not in ends and not (re.fullmatch(r"\d+", plan.phase) and int(plan.phase) <= ratio):
        raise ConfigError(
            f"plan.phase={plan.phase}: must be first, last, or a place from 0 to {ratio}, as "
            f"plan.ratio={ratio}"
        )
    return ends[plan.phase] if plan.phase in ends else int(plan.phase)


def works(selector: SelectorConfig, plan: PlanConfig) -> Iterator[tuple[str, Work]]:
    """What the layout has layers do, each with the option that says so; ``selector.layers`` is beside it.

    Raises:
        ConfigError: one of them is nothing that a layer can do, or the layout is malformed.
    """
    layout = layout_of(plan)
    only = "anchor" if plan.named == "all_anchor" else "cheap" if plan.named == "all_cheap" else None
    if layout == "ratio":
        ratio = ratio_of(plan)
        only = "cheap" if ratio is None else "anchor" if ratio == 0 else None
    if layout is None:
        yield "selector.name", Work(selector.name)
    elif layout == "repeat":
        for text in plan.repeat:
            yield "plan.repeat", read_work(text, "plan.repeat", selector)
    else:
        for name in ("cheap", "anchor"):
            work = read_work(getattr(plan, name), f"plan.{name}", selector)
            if only in (None, name):
                yield f"plan.{name}", work


def is_dense(selector: SelectorConfig, plan: PlanConfig) -> bool:
    """Whether every layer reads everything, in steps and of prompts, whatever the model."""
    return selectors_of(selector, plan) == {"dense"} and not selector.prefill.asked


def needs_gates(selector: SelectorConfig, plan: PlanConfig) -> bool:
    """Whether gates are read: else they need not be there."""
    return any(traits_of(name).gates for name in selectors_of(selector, plan))


def selectors_of(selector: SelectorConfig, plan: PlanConfig) -> set[str]:
    """Names of all that some layer may have."""
    return {*(work.selector for _, work in works(selector, plan)), *selector.layers.values()}


def selection_in(flat: Mapping[str, Any]) -> tuple[SelectorConfig, PlanConfig]:
    """What options by dotted name say that layers read, as far as it says whether that is everything."""
    layers = {name: value for name, value in flat.items() if name.startswith("selector.layers.")}
    plan, prefill = (
        {
            item.name: flat[f"{section}.{item.name}"]
            for item in fields(kind)
            if f"{section}.{item.name}" in flat
        }
        for section, kind in (("plan", PlanConfig), ("selector.prefill", PrefillConfig))
    )
    name = str(flat.get("selector.name"))
    return SelectorConfig(name, layers=layers, prefill=PrefillConfig(**prefill)), PlanConfig(**plan)
