"""The attention gate of SeerAttention (arXiv 2410.13276): which blocks of keys a block of queries reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from seer_ray.config.errors import ConfigError
from seer_ray.models.gate import POOLS, Weight
from seer_ray.models.rope import RopeTable


class PrefillGate(nn.Module):
    """Scores pairs of a block of queries and a block of keys, for each query head of one layer.

    Weights may be in any floating dtype; all arithmetic and all results are float32, under autocast too.
    Parameter names are those of the released checkpoints. With one pooling of queries and ``dg = d`` there is
    one projection, of the keys (``mask_linear_k.weight [Hq, p * d, dg]``); else there are two
    (``mask_linear_q.weight [Hq, pq * d, dg]``, ``mask_linear_k.weight [Hk, p * d, dg]``).

    Args:
        num_query_heads: ``Hq``.
        num_kv_heads: ``Hk``.
        head_dim: ``d``.
        gate_dim: ``dg``.
        block_size: tokens a block, of queries and of keys.
        rope_theta: base of plain RoPE over ``gate_dim``, at the blocks' first tokens.
        rope: instead of ``rope_theta``, a table over ``gate_dim``: for scaled RoPE, or shared by the layers.
            Neither: the gate ignores positions.
        q_pooling: what is kept of a block of queries, out of ``max``, ``min``, ``avg``, joined in this order.
        k_pooling: the same of keys.
        two_projections: where one would do.
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
        q_pooling: Sequence[str] = ("avg",),
        k_pooling: Sequence[str] = ("max", "min", "avg"),
        two_projections: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_query_heads % num_kv_heads:
            raise ConfigError(
                f"prefill gate: {num_query_heads} query heads, {num_kv_heads} KV heads: not a multiple"
            )
        for name, pooling in (("q", q_pooling), ("k", k_pooling)):
            if not pooling or len(set(pooling)) < len(pooling) or not set(pooling) <= POOLS.keys():
                raise ConfigError(
                    f"prefill gate: {name} pooling {list(pooling)}: must be some of {', '.join(POOLS)}, "
                    "each once"
                )
        if rope_theta is not None and rope is not None:
            raise ConfigError("prefill gate: one of rope_theta and rope")
        if rope_theta is not None:
            rope = RopeTable.from_theta(rope_theta, gate_dim, dtype=torch.float64).to(device)
        if rope is not None and rope.dim != gate_dim:
            raise ConfigError(f"prefill gate: RoPE over {rope.dim} channels, gate dim {gate_dim}")
        self.num_query_heads, self.num_kv_heads = num_query_heads, num_kv_heads
        self.head_dim, self.gate_dim, self.block_size = head_dim, gate_dim, block_size
        self.q_pooling, self.k_pooling, self.rope = tuple(q_pooling), tuple(k_pooling), rope
        self.two_projections = two_projections or len(self.q_pooling) > 1 or gate_dim != head_dim
        if self.two_projections:
            self.mask_linear_q = Weight(
                num_query_heads, len(self.q_pooling) * head_dim, gate_dim, dtype=dtype, device=device
            )
        heads = num_kv_heads if self.two_projections else num_query_heads
        self.mask_linear_k = Weight(
            heads, len(self.k_pooling) * head_dim, gate_dim, dtype=dtype, device=device
        )
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Random projections (Glorot uniform)."""
        for weight in self.parameters():
            bound = math.sqrt(6 / sum(weight.shape[1:]))
            nn.init.uniform_(weight, -bound, bound, generator=generator)

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.num_query_heads // self.num_kv_heads

    @property
    def key_width(self) -> int:
        """Numbers that are kept of a block of keys for each KV head."""
        return self.gate_dim if self.two_projections else self.group * self.gate_dim

    def compress_keys(self, k_nope: Tensor, first: Tensor) -> Tensor:
        """What is kept of blocks of keys, from anywhere.

        Args:
            k_nope: keys before RoPE, after the model's own k norm, ``[n, tokens, kv_heads, head_dim]``; the
                tokens that a block has.
            first: position of each block's first token, ``[n]``.

        Returns:
            ``[n, kv_heads, key_width]``.
        """
        pooled = torch.cat([POOLS[name](k_nope) for name in self.k_pooling], dim=-1)
        with torch.autocast(k_nope.device.type, enabled=False):
            weight = self.mask_linear_k.weight.float()
            heads = self.num_kv_heads
            weight = weight.view(heads, -1, *weight.shape[1:])  # [kv_heads, 1 or group, p * head_dim, dg]
            keys = torch.einsum("nhi,hgio->nhgo", pooled, weight)
            return self._rotate(keys.flatten(1, 2), first).reshape(len(keys), heads, -1)

    def gate_queries(self, q_nope: Tensor, first: Tensor) -> Tensor:
        """What blocks of queries ask; ``1 / sqrt(gate_dim)`` is folded in.

        Args:
            q_nope: queries before RoPE, after the model's own q norm, ``[n, tokens, q_heads, head_dim]``.
            first: position of each block's first token, ``[n]``.

        Returns:
            ``[n, q_heads, gate_dim]``.
        """
        pooled = torch.cat([POOLS[name](q_nope) for name in self.q_pooling], dim=-1)
        with torch.autocast(q_nope.device.type, enabled=False):
            if self.two_projections:
                pooled = torch.einsum("nhi,hio->nho", pooled, self.mask_linear_q.weight.float())
            return self._rotate(pooled, first) / math.sqrt(self.gate_dim)

    def logits(self, queries: Tensor, keys: Tensor) -> Tensor:
        """All pairs of blocks.

        Args:
            queries: of ``gate_queries``, ``[n, q_heads, gate_dim]``.
            keys: of ``compress_keys``, ``[m, kv_heads, key_width]``.

        Returns:
            ``[q_heads, n, m]``.
        """
        with torch.autocast(queries.device.type, enabled=False):
            n, m = len(queries), len(keys)
            queries = queries.view(n, self.num_kv_heads, self.group, self.gate_dim)
            keys = keys.float().view(m, self.num_kv_heads, -1, self.gate_dim)
            keys = keys.expand(-1, -1, self.group, -1)
            return torch.einsum("nhgd,mhgd->hgnm", queries, keys).flatten(0, 1)

    def score(self, q_nope: Tensor, k_nope: Tensor, start: int = 0) -> Tensor:
        """Logits of all pairs of blocks of a sequence, or of a chunk of it; -inf where the keys come later.

        Args:
            q_nope: queries before RoPE, ``[tokens, q_heads, head_dim]``. The last block may be open: it has
                the tokens that it has.
            k_nope: keys before RoPE, ``[tokens, kv_heads, head_dim]``: of the same tokens, or of all that
                come before them too.
            start: position of the first query, a multiple of the block size.

        Returns:
            ``[q_heads, q_blocks, k_blocks]``, float32; their softmax over ``k_blocks`` is the gate's share.

        Raises:
            ValueError: blocks of queries and of keys do not lie on each other.
        """
        begin = start + len(q_nope) - len(k_nope)
        if start % self.block_size or begin % self.block_size or begin < 0 or len(k_nope) < len(q_nope):
            raise ValueError(
                f"start={start}: {len(q_nope)} queries and {len(k_nope)} keys do not begin at multiples of "
                f"{self.block_size}"
            )
        queries = self._blocks(q_nope, start, self.gate_queries)
        keys = self._blocks(k_nope, begin, self.compress_keys)
        logits = self.logits(queries, keys)
        own = (start - begin) // self.block_size + torch.arange(len(queries), device=logits.device)
        later = torch.arange(len(keys), device=logits.device) > own.unsqueeze(1)
        return logits.masked_fill(later, float("-inf"))

    def _blocks(self, x: Tensor, start: int, made: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``made`` of the blocks of a sequence's tokens, full ones and an open one."""
        size, full = self.block_size, len(x) // self.block_size
        first = start + size * torch.arange(-(-len(x) // size), device=x.device)
        parts = [made(x[: full * size].unflatten(0, (full, size)), first[:full])] if full else []
        if full * size < len(x):
            parts.append(made(x[full * size :].unsqueeze(0), first[full:]))
        return torch.cat(parts)

    def _rotate(self, x: Tensor, first: Tensor) -> Tensor:
        return x.float() if self.rope is None else self.rope.rotate(x.float(), first)

    def extra_repr(self) -> str:
        return (
            f"query_heads={self.num_query_heads}, kv_heads={self.num_kv_heads}, head_dim={self.head_dim}, "
            f"gate_dim={self.gate_dim}, block_size={self.block_size}, {self.q_pooling}, {self.k_pooling}"
        )
