"""SeerAttention-R: a learned gate ranks the blocks (arXiv 2506.08889)."""

from __future__ import annotations

import torch

from seer_ray.kernels import gpu
from seer_ray.kernels.quantise import KV
from seer_ray.kernels.rotary import unrotate
from seer_ray.kernels.score import score
from seer_ray.models.gate import NORM_EPS, AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import CurrentPages, FullKeys, Query, Selector, StepView


class Seer(Selector):
    """Summary of a page: its compressed key, the gate's k branch at the position of the first token."""

    def __init__(self, gate: AttnGate) -> None:
        self.gate = gate
        self.summary_width = gate.gate_dim

    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Seer:
        assert gate is not None
        return cls(gate)

    @property
    def weights(self) -> tuple[torch.Tensor, ...]:
        return tuple(weight.data for weight in self.gate.parameters())

    def summarise(self, full: FullKeys) -> torch.Tensor:
        # The gate wants keys before rotation. Undoing it on the cached page keeps no state between steps,
        # so a page can be shared, copied and dropped with nothing beside it.
        k_nope = unrotate(full.k.transpose(1, 2), full.cos, full.sin)
        return self.gate.compress_pages(k_nope.to(self.gate.dtype), full.first)

    def fill(self, kv: KV, summary: torch.Tensor, current: CurrentPages, rope: RopeTable) -> None:
        gate = self.gate
        if not (gpu.takes(kv) and gate.dtype == torch.float32):
            super().fill(kv, summary, current, rope)
            return
        from seer_ray.kernels import triton_summary

        triton_summary.compress(
            kv,
            summary,
            current.pages,
            current.positions,
            (rope.cos, rope.sin),
            gate.attngate_linear_k.weight,
            gate.pooled,
            gate.attngate_knorm.weight if gate.use_qk_norm else None,
            NORM_EPS,
            current.rotary(gate.rope) if gate.rope is not None else None,
        )

    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        assert query.summary is not None
        table = view.rotary(self.gate.rope) if self.gate.rope is not None else None
        gate_query = self.gate.gate_query(query.q_nope, view.positions, table)  # [rows, kv_heads, gate_dim]
        return score(gate_query.unsqueeze(2), query.summary, view.page_table, view.lengths, view.block)
