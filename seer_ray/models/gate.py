"""The attention gate of SeerAttention-R (arXiv 2506.08889): one implementation trains and decodes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from seer_ray.config.errors import ConfigError
from seer_ray.kernels import cpu
from seer_ray.kernels.norm import rms_norm
from seer_ray.kernels.rotary import rotate
from seer_ray.models.rope import RopeTable

Q_POOLINGS = ("Qproj", "Qavgproj", "Qavg")
NORM_EPS = 1e-6


class AttnGate(nn.Module):
    """Scores the KV blocks of one layer with a small query and one compressed key per block and KV head.

    Weights may be in any floating dtype; all arithmetic and all results are float32, under autocast too.
    Parameter names are those of the released checkpoints.

    Args:
        num_query_heads: ``Hq``.
        num_kv_heads: ``Hk``; each has its own weights and its group of ``g = Hq / Hk`` query heads.
        head_dim: ``d``.
        gate_dim: ``dg``.
        block_size: tokens a block.
        rope_theta: base of plain RoPE over ``gate_dim``.
        rope: instead of ``rope_theta``, a table over ``gate_dim``: for scaled RoPE, or shared by the layers.
        use_rope: False: neither of the two, the gate ignores positions.
        use_qk_norm: RMSNorm after the projections, before RoPE.
        q_pooling: how a group's queries become one: ``Qproj`` (weights ``[Hk, g, d, dg]``), ``Qavgproj``
            (mean of the group, then ``[Hk, d, dg]``) or ``Qavg`` (mean only; needs ``dg = d``).
        k_pooling: ``K`` and what is kept of a block, out of ``max``, ``min``, ``avg`` in that order; the
            ``p`` vectors are joined and projected by ``[Hk, p * d, dg]``.
    """

    def __init__(
        self,
        *,
        num_query_heads: int,
        num_kv_heads: int,
        head_dim: int,
        gate_dim: int,
        block_size: int,
        rope_theta: float | None = None,
        rope: RopeTable | None = None,
        use_rope: bool = True,
        use_qk_norm: bool = True,
        q_pooling: str = "Qproj",
        k_pooling: str = "Kmaxminavg",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_query_heads % num_kv_heads:
            raise ConfigError(f"gate: {num_query_heads} query heads, {num_kv_heads} KV heads: not a multiple")
        self.num_query_heads, self.num_kv_heads = num_query_heads, num_kv_heads
        self.head_dim, self.gate_dim, self.block_size = head_dim, gate_dim, block_size
        self.q_pooling, self.k_pooling = q_pooling, k_pooling
        self.pools = _parse_k_pooling(k_pooling)
        if (rope_theta is not None) + (rope is not None) != use_rope:
            raise ConfigError("gate: one of rope_theta and rope, or use_rope=False and neither")
        if rope_theta is not None:
            rope = RopeTable.from_theta(rope_theta, gate_dim, dtype=torch.float64).to(device)
        self.temperature: tuple[float, ...] | None = None
        """What the logits of each KV head are divided by before their softmax is a share; None: 1. Neither
        training nor the order of blocks depends on it."""
        self.rope = rope
        if self.rope is not None and self.rope.dim != gate_dim:
            raise ConfigError(f"gate: RoPE over {self.rope.dim} channels, gate dim {gate_dim}")

        group = num_query_heads // num_kv_heads
        weight = partial(Weight, dtype=dtype, device=device)
        match q_pooling:
            case "Qproj":
                self.attngate_linear_q = weight(num_kv_heads, group, head_dim, gate_dim)
            case "Qavgproj":
                self.attngate_linear_q = weight(num_kv_heads, head_dim, gate_dim)
            case "Qavg" if head_dim == gate_dim:
                pass
            case "Qavg":
                raise ConfigError(f"gate: Qavg needs gate dim {gate_dim} to be head dim {head_dim}")
            case _:
                raise ConfigError(f"gate: q pooling {q_pooling}: must be one of {', '.join(Q_POOLINGS)}")
        self.attngate_linear_k = weight(num_kv_heads, len(self.pools) * head_dim, gate_dim)
        self.use_qk_norm = use_qk_norm
        if use_qk_norm:
            self.attngate_qnorm = weight(gate_dim)
            self.attngate_knorm = weight(gate_dim)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Random projections (Glorot uniform), norms of one."""
        for name, weight in self.named_parameters():
            if "norm" in name:
                nn.init.ones_(weight)
            else:
                fan_in, fan_out = math.prod(weight.shape[1:-1]), weight.shape[-1]
                bound = math.sqrt(6 / (fan_in + fan_out))
                nn.init.uniform_(weight, -bound, bound, generator=generator)

    @property
    def pooled(self) -> tuple[bool, bool, bool]:
        """Whether max, min and average of a block's keys are among the inputs of its compressed key."""
        return POOLS["max"] in self.pools, POOLS["min"] in self.pools, POOLS["avg"] in self.pools

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.attngate_linear_k.weight.dtype

    def compress_keys(self, k_nope: Tensor) -> Tensor:
        """Compressed keys of a sequence from position 0 on; tokens after the last full block are left out.

        Args:
            k_nope: keys before RoPE, after the model's own k norm, ``[batch, tokens, kv_heads, head_dim]``.

        Returns:
            ``[batch, tokens // block_size, kv_heads, gate_dim]``.
        """
        batch, tokens = k_nope.shape[:2]
        blocks = tokens // self.block_size
        pages = k_nope[:, : blocks * self.block_size].reshape(-1, self.block_size, *k_nope.shape[2:])
        first = torch.arange(blocks, device=k_nope.device).repeat(batch) * self.block_size
        return self.compress_pages(pages, first).view(batch, blocks, self.num_kv_heads, self.gate_dim)

    def compress_pages(self, k_nope: Tensor, first_positions: Tensor) -> Tensor:
        """Compressed keys of full blocks from anywhere.

        Args:
            k_nope: as above, ``[n, block_size, kv_heads, head_dim]``.
            first_positions: position of each block's first token, ``[n]``.

        Returns:
            ``[n, kv_heads, gate_dim]``.
        """
        pooled = torch.cat([pool(k_nope) for pool in self.pools], dim=-1)  # [n, kv_heads, p * head_dim]
        with torch.autocast(k_nope.device.type, enabled=False):
            keys = torch.einsum("nhi,hio->nho", pooled, self.attngate_linear_k.weight.float())
            if self.use_qk_norm:
                keys = rms_norm(keys, self.attngate_knorm.weight.float(), NORM_EPS)
            return keys if self.rope is None else self.rope.rotate(keys, first_positions)

    def gate_query(
        self, q_nope: Tensor, positions: Tensor, table: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The query that compressed keys are multiplied with; ``1 / sqrt(gate_dim)`` is folded in.

        Args:
            q_nope: queries before RoPE, after the model's own q norm, ``[batch, q_heads, head_dim]``.
            positions: of their tokens, ``[batch]``.
            table: ``self.rope.at(positions)``, where the caller has it already.

        Returns:
            ``[batch, kv_heads, gate_dim]``.
        """
        if self.rope is not None and table is None:
            table = self.rope.at(positions)
        weights = self._compiled(q_nope)
        if weights is not None:
            weight, norm = weights
            return cpu.gate_query(q_nope, weight, norm, table, NORM_EPS, self.gate_dim**-0.5)
        # [batch, kv_heads, group, head_dim]
        q = q_nope.float().reshape(q_nope.shape[0], self.num_kv_heads, -1, self.head_dim)
        with torch.autocast(q_nope.device.type, enabled=False):
            match self.q_pooling:
                case "Qproj":
                    q = torch.einsum("bhgi,hgio->bho", q, self.attngate_linear_q.weight.float())
                case "Qavgproj":
                    q = torch.einsum("bhi,hio->bho", q.mean(2), self.attngate_linear_q.weight.float())
                case _:
                    q = q.mean(2)
            if self.use_qk_norm:
                q = rms_norm(q, self.attngate_qnorm.weight.float(), NORM_EPS)
            if table is not None:
                q = rotate(q, *table)
        return q / math.sqrt(self.gate_dim)

    def _compiled(self, q_nope: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """The projection and the norm, if the CPU's compiled operation takes them and these queries."""
        if self.q_pooling != "Qproj" or self.gate_dim > cpu.MAX_DIM:
            return None
        weight = self.attngate_linear_q.weight
        norm = self.attngate_qnorm.weight if self.use_qk_norm else None
        return (weight, norm) if cpu.takes_rows(q_nope, weight, *([] if norm is None else [norm])) else None

    def score(self, q_nope: Tensor, positions: Tensor, compressed: Tensor) -> Tensor:
        """Logits of blocks; their softmax over a row's complete blocks is the gate's attention.

        Args:
            q_nope, positions: see ``gate_query``.
            compressed: ``[batch, blocks, kv_heads, gate_dim]``, or with batch 1 for queries of one sequence.

        Returns:
            ``[batch, kv_heads, blocks]``.
        """
        query = self.gate_query(q_nope, positions)
        with torch.autocast(query.device.type, enabled=False):
            return torch.einsum("bhd,bnhd->bhn", query, compressed.float())

    def extra_repr(self) -> str:
        return (
            f"query_heads={self.num_query_heads}, kv_heads={self.num_kv_heads}, head_dim={self.head_dim}, "
            f"gate_dim={self.gate_dim}, block_size={self.block_size}, {self.q_pooling}, {self.k_pooling}"
        )


class Weight(nn.Module):
    """A tensor under the name ``<module>.weight``, which the released checkpoints have."""

    def __init__(self, *shape: int, dtype: torch.dtype, device: torch.device | str | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype, device=device))


def _pool_max(k: Tensor) -> Tensor:
    return k.amax(1).float()


def _pool_min(k: Tensor) -> Tensor:
    return k.amin(1).float()


def _pool_avg(k: Tensor) -> Tensor:
    return k.mean(1, dtype=torch.float32)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {"max": _pool_max, "min": _pool_min, "avg": _pool_avg}
"""What can be kept of blocks ``[n, tokens, heads, head_dim]``: ``[n, heads, head_dim]``, in fp32."""


def _parse_k_pooling(name: str) -> list[Callable[[Tensor], Tensor]]:
    match = re.fullmatch(r"K(max)?(min)?(avg)?", name)
    parts = match.groups() if match else ()
    pools: list[Callable[[Tensor], Tensor]] = [POOLS[part] for part in parts if part]
    if not pools:
        raise ConfigError(f"gate: k pooling {name}: must be K and one or more of max, min, avg in that order")
    return pools
