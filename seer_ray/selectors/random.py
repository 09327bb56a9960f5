"""Chance: the floor that every other ranking must beat."""

from __future__ import annotations

import torch

from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Query, Selector, StepView


class Random(Selector):
    """A ranking by chance that is the same for the same step, layer, head and block: the floor.

    Args:
        kv_heads: here.
        place: of these heads among all that there are, in units of ``kv_heads``: the layer, on one rank.
    """

    def __init__(self, kv_heads: int, place: int) -> None:
        self.kv_heads, self.place = kv_heads, place

    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Random:
        return cls(shape.kv_heads, layer * shape.group.size + shape.group.rank)

    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        rows, width = view.page_table.shape
        head = (
            torch.arange(self.kv_heads, device=view.page_table.device).view(1, -1, 1)
            + self.kv_heads * self.place
        )
        block = torch.arange(width, device=view.page_table.device)
        x = (view.positions.view(rows, 1, 1) * 1_000_003 + head) * 65_537 + block
        for _ in range(3):  # mixes 31 bits; int64 holds every product
            x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
        return x.float()
