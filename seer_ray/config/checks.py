"""What options may say, alone and beside each other."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import (
    ALL,
    ERROR_KINDS,
    EngineConfig,
    PlanConfig,
    RunConfig,
    SamplingConfig,
    SelectorConfig,
    SweepConfig,
    options,
)
from seer_ray.config.selecting import AUTO, UNIFORM
from seer_ray.config.selectors import SELECTORS, traits_of
from seer_ray.config.speculating import check_speculation
from seer_ray.config.works import anchor_at, layout_of, ratio_of, works

PLACING = ("ratio", "named", "anchors")
"""Layouts that say which layers are anchors."""

LARGEST = 2**63 - 1
"""What columns, tensors and counters hold."""


def check(config: Any, prefix: str = "") -> None:
    """Bounds and choices, which of a mapping are those of its values, and what options demand of each other.

    Raises:
        ConfigError: names the option, the value and what is allowed.
    """
    for name, value, meta in options(config, prefix):
        if isinstance(value, dict):
            for key, item in value.items():
                for one in item if isinstance(item, list) else [item]:
                    _check_value(f"{name}.{key}", one, meta)
        else:
            _check_value(name, value, meta)
    betas = getattr(getattr(config, "train", None), "betas", (0.0, 0.0))
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"train.betas={betas}: must be two numbers from 0 to below 1, such as [0.9,0.98]")
    if isinstance(config, RunConfig):
        check_selector(config.selector, config.engine, config.plan)
        check_speculation(config.selector, config.engine, config.plan)
        parse_bytes(config.engine.kv_memory, "engine.kv_memory")
        check_marks(config.task.thinking_marks)
        check_thinking(config.sampling)
        check_sequential(config)
        check_retried(config.results.retry_errors)


def _check_value(name: str, value: Any, meta: Mapping[str, Any]) -> None:
    """An option, or an entry of one that is a mapping, beside its metadata."""
    if value is None:
        return
    said = f"{value:.12g}" if isinstance(value, float) else str(value)
    unit = f" {meta['unit']}" if meta["unit"] else ""
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{name}={said}: must be a number")
    if isinstance(value, float) and math.isinf(value):
        raise ConfigError(f"{name}={said}: must be finite")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{name}={said[:20]}…: must be of at most 64 bits, {LARGEST} at most")
    if meta["choices"] and value not in meta["choices"] and not (meta["own"] and ":" in said):
        near = did_you_mean(said, meta["choices"])
        own = f", or {meta['own']}" if meta["own"] else ""
        raise ConfigError(f"{name}={said}: must be one of {', '.join(meta['choices'])}{own}{near}")
    if meta["minimum"] is not None and value < meta["minimum"]:
        raise ConfigError(f"{name}={said}: must be at least {meta['minimum']}{unit}")
    if meta["maximum"] is not None and value > meta["maximum"]:
        raise ConfigError(f"{name}={said}: must be at most {meta['maximum']}{unit}")
    if meta["above"] is not None and value <= meta["above"]:
        raise ConfigError(f"{name}={said}: must be above {meta['above']}{unit}")


def check_selector(selector: SelectorConfig, engine: EngineConfig, plan: PlanConfig) -> None:
    """A sparse budget must hold the open block and one more; thresholds and masses need scores that are
    shares."""
    check_plan(selector, plan)
    said = list(works(selector, plan))
    used = {*(work.selector for _, work in said), *selector.layers.values()}
    sparse = {name: traits for name in sorted(used) if (traits := traits_of(name)).sparse}
    least = 2 * engine.block_size
    needed = f"must be at least two blocks, {least} tokens with engine.block_size={engine.block_size}"
    for option, work in said:
        if work.budget is not None and work.budget < least:
            raise ConfigError(f"{option}={work.selector}:{work.budget}: {needed}")
    if sparse:
        check_amount(selector, least, needed)
    if selector.allocation not in (AUTO, UNIFORM) and selector.amounts:
        raise ConfigError(
            f"selector.allocation={selector.allocation}: selector.{selector.amounts[0]} decides already what "
            "heads read; leave one of them out"
        )
    without = [name for name, traits in sparse.items() if not traits.threshold]
    for name in ("threshold", "mass"):
        if getattr(selector, name) is not None and without:
            others = " or ".join(name for name, traits in SELECTORS.items() if traits.threshold)
            raise ConfigError(
                f"selector.{name}={getattr(selector, name):g}: {' and '.join(without)} gives blocks no "
                f"share to compare with it; leave it out, or take {others}"
            )
    slow = [name for name, traits in sparse.items() if traits.reads_all_keys]
    if selector.sparse_prefill and slow:
        others = " or ".join(name for name, each in SELECTORS.items() if each.sparse and name not in slow)
        raise ConfigError(
            f"selector.sparse_prefill=true: {' and '.join(slow)} would read all keys once for every prompt "
            f"token; leave it out, or take {others}"
        )
    check_prefill(selector, engine)
    if selector.sparse_prefill and sparse and engine.prefill_chunk % engine.block_size:
        raise ConfigError(
            f"engine.prefill_chunk={engine.prefill_chunk}: must be a multiple of "
            f"engine.block_size={engine.block_size} with selector.sparse_prefill=true, "
            "so that no block is cut in two"
        )


def check_amount(selector: SelectorConfig, least: int, needed: str, option: str = "selector") -> None:
    """One rule, and budgets that hold what is forced.

    Args:
        selector: what layers may read.
        least: tokens of a budget.
        needed: what is said of one that is smaller.
        option: what ``selector`` is called.
    """
    if selector.threshold is not None and selector.mass is not None:
        raise ConfigError(
            f"{option}.threshold={selector.threshold:g} and {option}.mass={selector.mass:g}: one of them "
            "says how much is read; leave the other out"
        )
    if selector.budget < least:
        raise ConfigError(f"{option}.budget={selector.budget}: {needed}")
    for layer, heads in selector.head_shares.items():
        if not heads:
            raise ConfigError(f"{option}.head_shares.{layer}=[]: must be a share for each KV head")
    if selector.threshold is not None or selector.mass is not None:
        return
    shares = [("shares", layer, [share]) for layer, share in selector.shares.items()]
    for name, layer, each in [*shares, *(("head_shares", *item) for item in selector.head_shares.items())]:
        if selector.budget * min(each) < least:
            raise ConfigError(
                f"{option}.{name}.{layer}={min(each):g}: {needed}; of {option}.budget={selector.budget} that "
                f"is {least / selector.budget:.2g}"
            )


def check_prefill(selector: SelectorConfig, engine: EngineConfig) -> None:
    """One amount at a time, by whole blocks, and beside no other sparse prefill."""
    prefill = selector.prefill
    if prefill.allocation not in (AUTO, UNIFORM) and prefill.density is None:
        raise ConfigError(
            f"selector.prefill.allocation={prefill.allocation}: shares selector.prefill.density; set that"
        )
    if not prefill.asked:
        return
    said = [f"selector.prefill.{name}={getattr(prefill, name):g}" for name in prefill.asked]
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(said)}: one of them says how much is read; leave the others out")
    if selector.sparse_prefill:
        raise ConfigError(
            f"{said[0]}: selector.sparse_prefill=true has the gates of decoding pick the blocks of prompts; "
            "leave one of the two out"
        )
    if engine.prefill_chunk % engine.block_size:
        raise ConfigError(
            f"engine.prefill_chunk={engine.prefill_chunk}: must be a multiple of engine.block_size="
            f"{engine.block_size} with {said[0]}, so that no block is cut in two"
        )


def check_plan(selector: SelectorConfig, plan: PlanConfig) -> None:
    """One layout at a time, with all that it needs and nothing that it does not read."""
    layout = layout_of(plan)
    if layout == "ratio" and (ratio := ratio_of(plan)) is not None:
        anchor_at(plan, ratio)
    usual = PlanConfig()
    reads = {"phase": ("ratio",), "cheap": PLACING, "anchor": PLACING, "equal_at": (*PLACING, "repeat")}
    for name, layouts in reads.items():
        if (value := getattr(plan, name)) != getattr(usual, name) and layout not in layouts:
            raise ConfigError(
                f"plan.{name}={value}: means nothing without {' or '.join(f'plan.{one}' for one in layouts)}"
            )
    if layout == "anchors" and not plan.ranking:
        raise ConfigError(
            f"plan.anchors={plan.anchors}: needs plan.ranking; seer-ray gates shares writes one, ranking.yaml"
        )
    if len(set(plan.ranking)) < len(plan.ranking):
        twice = next(layer for layer in plan.ranking if plan.ranking.count(layer) > 1)
        raise ConfigError(f"plan.ranking={plan.ranking}: has layer {twice} twice; each stands there once")
    if plan.equal_at is None:
        return
    if plan.equal_at <= selector.budget:
        raise ConfigError(
            f"plan.equal_at={plan.equal_at}: must be above selector.budget={selector.budget}, which reads "
            "everything there"
        )
    for name in ("shares", "head_shares", "threshold", "mass", "fraction"):
        if getattr(selector, name):
            raise ConfigError(
                f"plan.equal_at={plan.equal_at}: selector.{name} decides already what layers read; leave one "
                "of them out"
            )


def check_retried(kinds: list[str]) -> None:
    """Raises ConfigError: no such kind of error rows."""
    known = (*ERROR_KINDS, ALL)
    for kind in kinds:
        if kind not in known:
            raise ConfigError(
                f"results.retry_errors={kind}: must be of {', '.join(known)}{did_you_mean(kind, known)}"
            )


def check_marks(marks: list[str] | None) -> None:
    """Two texts that differ, or none."""
    if marks and (len(marks) != 2 or not all(marks) or marks[0] == marks[1]):
        raise ConfigError(
            f"task.thinking_marks={marks}: must be two texts that differ, such as [<think>,</think>], or []"
        )


def check_thinking(sampling: SamplingConfig) -> None:
    """An end of thinking has a budget at which it is forced."""
    if sampling.thinking_end is not None and sampling.thinking_budget is None:
        raise ConfigError(
            f"sampling.thinking_end={sampling.thinking_end!r}: means nothing without sampling.thinking_budget"
        )


def check_sequential(config: RunConfig) -> None:
    """Samples to save, and answers to decide by."""
    if not config.sequential.enabled:
        return
    every = config.sequential.every
    if config.samples <= every:
        raise ConfigError(
            f"sequential.every={every}: must be below samples={config.samples}, or there is nothing to save"
        )
    if config.task.grader == "none":
        raise ConfigError("sequential.enabled=true: task.grader=none finds no answers to decide by")
    if isinstance(config, SweepConfig) and config.sweep.racing.enabled:
        raise ConfigError(
            "sequential.enabled=true: sweep.racing.enabled decides by all samples of a problem; leave one out"
        )


def parse_bytes(text: str, name: str) -> int | None:
    """``8GiB``, ``500MB``, ``1073741824`` -> bytes; ``auto`` -> None."""
    if text == "auto":
        return None
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not match:
        raise ConfigError(f"{name}={text}: must be 'auto' or a size such as 8GiB or 500MB")
    number, prefix, binary = match.groups()
    power = " KMGT".index(prefix.upper() or " ")
    return int(float(number) * (1024 if binary else 1000) ** power)
