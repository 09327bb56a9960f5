"""How the KV heads of a model share what they may read: measured once, kept as a file, read by every run."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seer_ray.config.errors import ConfigError, first_line
from seer_ray.config.selecting import AUTO, UNIFORM, SelectorConfig
from seer_ray.config.selectors import traits_of
from seer_ray.config.works import Work
from seer_ray.models.limits import LEAST, Limit
from seer_ray.models.source import find_allocation, find_prompt_allocation

PROMPTS = "prefill"
"""Stands for a selector where it is prompts whose query heads share a density."""


@dataclass(frozen=True)
class Allocation:
    """Of one selector: what each KV head reads where they read ``budgets`` on average. See
    ``fidelity.division``, which finds it."""

    layers: tuple[int, ...]
    """Those that it is for, ascending."""
    budgets: tuple[float, ...]
    """Ascending; tokens, or of ``PROMPTS`` densities."""
    tokens: tuple[tuple[tuple[float, ...], ...], ...]
    """``[budgets, layers, kv_heads]``, or of ``PROMPTS`` densities ``[budgets, layers, q_heads]``."""

    @property
    def kv_heads(self) -> int:
        return len(self.tokens[0][0])

    @lru_cache(maxsize=64)  # noqa: B019 - few there are, and small
    def limits(
        self, budget: int, block: int, layers: tuple[int, ...], cap: int | None = None
    ) -> dict[int, Limit]:
        """What ``layers`` may read: ``budget`` on average over their heads, however long a sequence is, and
        everything of one that is no longer than that.

        Args:
            budget: tokens.
            block: tokens a block.
            layers: some of ``self.layers``.
            cap: most tokens of a head, not below ``budget``; None: no such limit.
        """
        rows = [self.layers.index(layer) for layer in layers]
        wanted = np.array([self._wanted(budget)[row] for row in rows], dtype=np.float64)
        mean, most = budget // block, math.inf if cap is None else cap // block
        last = _filled(wanted.ravel(), mean, np.array([most]))[0]
        there = np.arange(1, last.max() + 1, dtype=np.float64)
        early = _filled(wanted.ravel(), mean, np.minimum(there, most))
        both = zip(last.tolist(), early.T.tolist(), strict=True)
        heads = [Limit(blocks, early=tuple(first)) for blocks, first in both]
        count = self.kv_heads
        found = {}
        for place, layer in enumerate(layers):
            own = tuple(heads[place * count : (place + 1) * count])
            found[layer] = Limit(round(sum(head.blocks for head in own) / count), heads=own, allotted=mean)
        return found

    def densities(self, density: float) -> dict[int, tuple[float, ...]]:
        """Of ``PROMPTS``: of each layer's query heads, ``density`` on average and 1 at most."""
        wanted = np.array(self._wanted(density), dtype=np.float64)
        low, high = 0.0, 1 / float(wanted.min())
        for _ in range(80):
            factor = (low + high) / 2
            enough = np.minimum(factor * wanted, 1).mean() >= density
            low, high = (low, factor) if enough else (factor, high)
        rows = np.minimum(high * wanted, 1).tolist()
        return {layer: tuple(heads) for layer, heads in zip(self.layers, rows, strict=True)}

    def _wanted(self, budget: float) -> Sequence[Sequence[float]]:
        """``[layers, kv_heads]``, up to a factor: between two budgets along a power of the budget, outside of
        them as at the nearest."""
        after = bisect_left(self.budgets, budget)
        if after in (0, len(self.budgets)):
            return self.tokens[min(after, len(self.budgets) - 1)]
        low, high = self.budgets[after - 1], self.budgets[after]
        part = math.log(budget / low) / math.log(high / low)
        return [
            [a ** (1 - part) * b**part for a, b in zip(*pair, strict=True)]
            for pair in zip(self.tokens[after - 1], self.tokens[after], strict=True)
        ]


def allotted(
    shared: Mapping[str, Allocation],
    works: Sequence[Work],
    budget: int,
    block: int,
    asked: SelectorConfig,
    kv_heads: int | None,
) -> dict[int, Limit]:
    """What layers read that share a budget: of each selector those without a budget of their own.

    Args:
        shared: by selector.
        works: of the layers.
        budget: tokens, mean over the heads of each selector's layers.
        block: tokens a block.
        asked: the options.
        kv_heads: of a layer; None: not known yet.

    Raises:
        ConfigError: the allocation is another model's or of no selector that is used, or ``selector.cap`` is
            too small or has nothing to bound.
    """
    found: dict[int, Limit] = {}
    for name, one in shared.items():
        layers = tuple(layer for layer, work in enumerate(works) if work == Work(name))
        if not layers:
            continue
        if asked.cap is not None and asked.cap < budget:
            raise ConfigError(f"selector.cap={asked.cap}: must not be below the mean budget, {budget} tokens")
        other = f"the allocation of {name} is of another model; set selector.allocation={UNIFORM}"
        if kv_heads not in (None, one.kv_heads):
            raise ConfigError(f"{other}: it has {one.kv_heads} KV heads a layer, the model {kv_heads}")
        if missing := [layer for layer in layers if layer not in one.layers]:
            raise ConfigError(f"{other}: it has no layer {missing[0]}")
        found |= one.limits(budget, block, layers, asked.cap)
    if not found and any(traits_of(work.selector).sparse for work in works):
        if asked.allocation not in (AUTO, UNIFORM):
            raise ConfigError(
                f"selector.allocation={asked.allocation}: is for {', '.join(shared)}, which no layer has; "
                "find one with seer-ray gates shares, or set uniform"
            )
        if asked.cap is not None:
            raise ConfigError(
                f"selector.cap={asked.cap}: bounds what an allocation gives a head, and there is none; leave "
                "it out, or set selector.allocation"
            )
    return found


def _filled(wanted: NDArray[np.float64], mean: int, most: NDArray[np.float64]) -> NDArray[np.int64]:
    """Blocks of each head, in proportion to ``wanted``, at least ``LEAST`` and at most ``most``, that come to
    ``mean`` on average; all of ``most`` where that is less.

    Args:
        wanted: ``[heads]``.
        most: of every head, for several cases, ``[cases]``.

    Returns:
        ``[cases, heads]``.
    """
    top = most[:, None]
    low, high = np.zeros_like(top), np.full_like(top, mean * len(wanted) / wanted.min() + LEAST)
    for _ in range(80):
        factor = (low + high) / 2
        enough = np.clip(factor * wanted, LEAST, top).sum(1, keepdims=True) >= mean * len(wanted)
        low, high = np.where(enough, low, factor), np.where(enough, factor, high)
    exact = np.minimum(np.clip(high * wanted, LEAST, top), top)
    blocks = np.floor(exact + 1e-9).astype(np.int64)
    # What rounding down leaves goes to those that lost most by it, the first of equal ones first.
    left = np.where(exact.sum(1) >= mean * len(wanted) - 1e-6, mean * len(wanted) - blocks.sum(1), 0)
    order = np.argsort(-(exact - blocks).round(9), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(len(wanted))[None].repeat(len(most), 0), axis=1)
    return blocks + (place < left[:, None])


def read_allocation(file: Path) -> dict[str, Allocation]:
    """By selector.

    Raises:
        ConfigError: no such file, or none of this form.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["selectors"]
        read = {
            name: Allocation(
                tuple(map(int, one["layers"])),
                tuple(map(float, one["budgets"])),
                tuple(tuple(tuple(map(float, heads)) for heads in layers) for layers in one["tokens"]),
            )
            for name, one in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: cannot be read as an allocation: {first_line(error)}") from None
    for name, one in read.items():
        heads = {len(each) for layers in one.tokens for each in layers}
        shape = len(one.tokens) == len(one.budgets) > 0 and {len(each) for each in one.tokens} == {
            len(one.layers)
        }
        positive = all(x > 0 and math.isfinite(x) for layers in one.tokens for each in layers for x in each)
        if not shape or len(heads) != 1 or not one.layers or not positive or min(one.budgets) <= 0:
            raise ConfigError(
                f"{file}: {name}: tokens must be a number above 0 for each budget, layer and KV head"
            )
    return read


def allocation_text(found: Mapping[str, Allocation], about: Mapping[str, object]) -> str:
    """What ``read_allocation`` reads.

    Args:
        found: by selector.
        about: what it was measured on, for whoever reads the file.
    """
    selectors = {name: asdict(one) for name, one in found.items()}
    return json.dumps({**about, "selectors": selectors}) + "\n"


def allocation_of(
    selector: SelectorConfig, gates: str | None, prefill_gates: str | None = None
) -> dict[str, Allocation]:
    """By selector, that of prompts as ``PROMPTS``, as the options say; empty: every head has the same.

    Args:
        selector: the options.
        gates: ``model.gates``.
        prefill_gates: ``model.prefill_gates``.

    Raises:
        ConfigError: see ``find_allocation`` and ``read_allocation``.
    """
    file, prompts = find_allocation(selector, gates), find_prompt_allocation(selector.prefill, prefill_gates)
    found = {} if file is None else read_allocation(file)
    if prompts is not None:
        read = read_allocation(prompts)
        if PROMPTS not in read:
            raise ConfigError(f"{prompts}: says nothing of prompts; seer-ray gates prompts finds that")
        found = {**found, PROMPTS: read[PROMPTS]}
    return found
