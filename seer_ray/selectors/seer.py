"""SeerAttention-R: a learned gate ranks the blocks (arXiv 2506.08889)."""

from __future__ import annotations

from typing import Any

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
        self.gate, self.rope = gate, gate.rope
        self.summary_width = gate.gate_dim

    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Seer:
        assert gate is not None
        return cls(gate)

    @property
    def weights(self) -> tuple[torch.Tensor, ...]:
        return tuple(weight.data for weight in self.gate.parameters())

    @property
    def sharpness(self) -> tuple[float, ...] | None:
        temperature = self.gate.temperature
        return None if temperature is None else tuple(1 / each for each in temperature)

    def look_up(self, positions: int, tables: dict[Any, RopeTable]) -> None:
        """Takes cos and sin of the gate from a table, which gates that turn alike share."""
        rope = self.gate.rope
        if rope is not None:
            key = (*rope.inv_freq.tolist(), rope.scaling)
            self.rope = tables.get(key) or tables.setdefault(key, rope.tabled(positions))

    def summarise(self, full: FullKeys) -> torch.Tensor:
        # The gate wants keys before rotation. Undoing it on the cached page keeps no state between steps,
        # so a page can be shared, copied and dropped with nothing beside it.
        k_nope = unrotate(full.k.transpose(1, 2), full.cos, full.sin)
        return self.gate.compress_pages(k_nope.to(self.gate.dtype), full.first)

    def fill(self, kv: KV, summary: torch.Tensor, current: CurrentPages, rope: RopeTable) -> None:
        if not self._launches(kv):
            super().fill(kv, summary, current, rope)
            return
        from seer_ray.kernels import triton_summary

        triton_summary.compress(kv, summary, **self._compressing(current, rope))

    def step(self, query: Query, view: StepView, current: CurrentPages, rope: RopeTable) -> torch.Tensor:
        gate = self.gate
        if not self._launches(query.kv) or gate.q_pooling != "Qproj" or query.summary is None:
            return super().step(query, view, current, rope)
        from seer_ray.kernels import triton_summary

        asking = triton_summary.Asking(
            query.q_nope,
            gate.attngate_linear_q.weight,
            gate.attngate_qnorm.weight if gate.use_qk_norm else None,
            view.rotary(self.rope) if self.rope is not None else None,
        )
        told = self._compressing(current, rope)
        asked = triton_summary.compress(query.kv, query.summary, **told, asking=asking)
        assert asked is not None
        return self._scores(asked, query, view)

    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        table = view.rotary(self.rope) if self.rope is not None else None
        return self._scores(self.gate.gate_query(query.q_nope, view.positions, table), query, view)

    def _scores(self, gate_query: torch.Tensor, query: Query, view: StepView) -> torch.Tensor:
        """``gate_query [rows, kv_heads, gate_dim]``"""
        assert query.summary is not None
        return score(gate_query.unsqueeze(2), query.summary, view.page_table, view.lengths, view.block)

    def _launches(self, kv: KV) -> bool:
        return gpu.takes(kv) and self.gate.dtype == torch.float32

    def _compressing(self, current: CurrentPages, rope: RopeTable) -> dict[str, Any]:
        """What the kernel of ``fill`` wants to know beside cache and summaries."""
        gate = self.gate
        return {
            "pages": current.pages,
            "positions": current.positions,
            "rotary": (rope.cos, rope.sin),
            "weight": gate.attngate_linear_k.weight,
            "pools": gate.pooled,
            "norm": gate.attngate_knorm.weight if gate.use_qk_norm else None,
            "eps": NORM_EPS,
            "gate_rotary": current.rotary(self.rope) if self.rope is not None else None,
        }
