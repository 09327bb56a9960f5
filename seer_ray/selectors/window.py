"""The most recent blocks, whatever is in them."""

from __future__ import annotations

import torch

from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Query, Selector, StepView


class Window(Selector):
    """The most recent blocks (and the sink, which is forced for all selectors)."""

    def __init__(self, kv_heads: int) -> None:
        self.kv_heads = kv_heads

    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Window:
        return cls(shape.kv_heads)

    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        rows, width = view.page_table.shape
        recency = torch.arange(width, device=view.page_table.device, dtype=torch.float32)
        return recency.expand(rows, self.kv_heads, width)
