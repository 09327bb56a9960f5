"""Quest: an upper bound of q·k over a block from its elementwise min and max of k (arXiv 2406.10774)."""

from __future__ import annotations

import torch

from seer_ray.kernels import gpu
from seer_ray.kernels.quantise import KV
from seer_ray.kernels.score import bound
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import CurrentPages, FullKeys, Query, Selector, StepView


class Quest(Selector):
    """Summary of a page: max, then min of the rotated keys.

    ``sum_d max(q_d max_d, q_d min_d)`` is the dot product of (q⁺, q⁻) with (max, min), so the bound is
    scored like the gate. All query heads of a group share the selection: the largest bound counts. Scores are
    bounds of the attention logits, scale included, so that their softmax is a share that a threshold fits.
    """

    def __init__(self, head_dim: int, kv_heads: int) -> None:
        self.summary_width = 2 * head_dim
        self.kv_heads = kv_heads

    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Quest:
        return cls(shape.head_dim, shape.kv_heads)

    def summarise(self, full: FullKeys) -> torch.Tensor:
        return torch.cat((full.k.amax(2), full.k.amin(2)), dim=-1)

    def fill(self, kv: KV, summary: torch.Tensor, current: CurrentPages, rope: RopeTable) -> None:
        if gpu.takes(kv):
            from seer_ray.kernels import triton_summary

            triton_summary.extremes(kv, summary, current.pages, current.positions)
        else:
            super().fill(kv, summary, current, rope)

    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        assert query.summary is not None
        grouped = query.q.unflatten(1, (self.kv_heads, -1))
        return bound(grouped, query.summary, view.page_table, view.lengths, view.block, query.scale)
