"""What steps should take on a GPU that is not at hand: bytes at a share of its bandwidth, and launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Device:
    """Of a GPU."""

    name: str
    bytes_per_s: float
    """That copies reach."""
    node_s: float
    """Of a captured graph, beside its reads."""


@dataclass(frozen=True)
class Model:
    """Of a model in bfloat16."""

    name: str
    weights: float
    """Bytes that a step reads, embeddings left out."""
    layers: int
    kv_heads: int
    head_dim: int
    block: int = 64
    launches: tuple[int, int] = (11, 13)
    """Of a layer: dense, sparse."""
    around: int = 40
    """Outside the layers."""

    @property
    def kv(self) -> int:
        """Bytes of K and V of a token."""
        return self.layers * self.kv_heads * self.head_dim * 2 * 2


H200 = Device("H200", 0.8 * 4.8e12, 1.5e-6)
QWEN3_8B = Model("Qwen3-8B", 16.4e9, 36, 8, 128)


def step(device: Device, model: Model, rows: int, context: int, budget: int | None) -> float:
    """Seconds of a decode step, of a sparse one with compressed keys of all blocks.

    A pass that verifies a few tokens of each row reads what a dense step reads, and launches as much: at
    these sizes products stay bound by bytes.

    Args:
        budget: in tokens; None: dense.
    """
    nodes = model.layers * model.launches[budget is not None] + model.around
    keys = context if budget is None else min(budget, context)
    compressed = 0 if budget is None else context // model.block * model.kv // 4
    read = model.weights + rows * (keys * model.kv + compressed)
    return read / device.bytes_per_s + nodes * device.node_s


def speculated(
    device: Device, model: Model, rows: int, context: int, budget: int, accepted: Sequence[float]
) -> dict[str, Any]:
    """Milliseconds a token of dense and sparse decoding and of speculation.

    Args:
        accepted: share of draft tokens at each place that became tokens; so many are drafted.
    """
    dense, sparse = (step(device, model, rows, context, one) for one in (None, budget))
    tokens = 1 + sum(accepted)
    lossless = (len(accepted) * sparse + dense) / tokens
    return {
        "rows": rows,
        "context": context,
        "budget": budget,
        "drafted": len(accepted),
        "tokens_per_pass": round(tokens, 2),
        "dense_ms": round(dense * 1e3, 1),
        "sparse_ms": round(sparse * 1e3, 1),
        "speculated_ms": round(lossless * 1e3, 1),
        "over_dense": round(dense / lossless, 2),
    }
