"""How much the layers of a model may read in a step, from the options that say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from seer_ray.config.errors import ConfigError
from seer_ray.config.selecting import SelectorConfig
from seer_ray.kernels.limits import Limits
from seer_ray.models.group import ALONE, Group
from seer_ray.models.layers import layer_range

LEAST = 2
"""Blocks of a budget: those that are forced."""


class Limit(NamedTuple):
    """Of one layer; see ``kernels.limits``."""

    blocks: int
    """At most. Of KV heads with budgets of their own, their mean, and ``heads`` has each one's."""
    threshold: float | None = None
    mass: float | None = None
    fraction: float = 0.0
    """Or so large a share of the blocks that there are, where that is more."""
    heads: tuple[Limit, ...] = ()
    """Of each KV head, where they differ."""
    early: tuple[int, ...] = ()
    """Of a head with an allocation: instead of ``blocks``, where there are 1, 2, ... blocks."""
    allotted: int = 0
    """Mean over the heads of all layers that share a budget by an allocation; 0: there is none."""

    @property
    def most(self) -> int:
        """Of any head, but for ``fraction``."""
        return max((self.blocks, *self.early, *(head.most for head in self.heads)))

    def told(
        self,
        kv_heads: int,
        sink: bool,
        *,
        sharpness: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
        group: Group = ALONE,
    ) -> Limits:
        """As ``select`` takes it.

        Args:
            kv_heads: those of this rank.
            sink: force the first block.
            sharpness: of each of them; None: 1.
            device: of the step.
            group: ranks, each with KV heads of its own.
        """
        each = self.heads[group.rank * kv_heads :][:kv_heads] or (self,) * kv_heads
        return Limits.of(
            kv_heads,
            [head.blocks for head in each],
            sink,
            threshold=None if self.threshold is None else [float(head.threshold or 0.0) for head in each],
            mass=None if self.mass in (None, 1.0) else [float(head.mass or 0.0) for head in each],
            fraction=[head.fraction for head in each],
            sharpness=sharpness,
            early=[head.early for head in each] if self.allotted else None,
            device=device,
        )


def layer_limits(
    budgets: Sequence[int],
    block_size: int,
    asked: SelectorConfig,
    option: str = "selector",
    kv_heads: int | None = None,
) -> list[Limit]:
    """What each layer may read.

    Args:
        budgets: tokens, of each layer.
        block_size: tokens a block.
        asked: ``threshold``, ``mass`` and ``fraction`` of layers without a share, and the shares of single
            layers and KV heads.
        option: what ``asked`` is called.
        kv_heads: of a layer; None: not known yet.

    Raises:
        ConfigError: a layer that is not there, or not a share for each KV head.
    """
    shares = [1.0] * len(budgets)
    for key, share in asked.shares.items():
        for layer in layer_range(key, len(budgets), f"{option}.shares.{key}={share:g}"):
            shares[layer] = share
    limits = [
        _shared(budget, block_size, asked, share) for budget, share in zip(budgets, shares, strict=True)
    ]
    for key, own in asked.head_shares.items():
        said = f"{option}.head_shares.{key}={list(own)}"
        if kv_heads is not None and len(own) != kv_heads:
            raise ConfigError(
                f"{said}: {len(own)} shares, the model has {kv_heads} KV heads a layer; one for each"
            )
        for layer in layer_range(key, len(budgets), said):
            heads = tuple(_shared(budgets[layer], block_size, asked, shares[layer] * share) for share in own)
            alike = len(set(heads)) == 1
            mean = round(sum(head.blocks for head in heads) / len(heads))
            limits[layer] = heads[0] if alike else limits[layer]._replace(blocks=mean, heads=heads)
    return limits


def _shared(budget: int, block_size: int, asked: SelectorConfig, share: float) -> Limit:
    """Of a layer or head that may read ``share`` times what others may.

    It divides a threshold, and what a mass leaves out, and the budget stays a cap; else it multiplies budget
    and fraction: to the nearest block, so that a mean share of 1 keeps the mean budget.
    """
    blocks, threshold, mass = budget // block_size, asked.threshold, asked.mass
    if threshold is not None:
        return Limit(blocks, threshold if share == 1 else threshold / share, None, asked.fraction)
    if mass is not None:
        left = mass if share == 1 else max(0.0, 1 - (1 - mass) / share)
        return Limit(blocks, None, left, asked.fraction)
    if share == 1:
        return Limit(blocks, fraction=asked.fraction)
    return Limit(max(LEAST, round(budget * share / block_size)), fraction=min(1.0, asked.fraction * share))
