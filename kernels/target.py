"""What a gate is trained to say: block shares of dense attention, streamed together with its output.

SeerAttention-R (arXiv 2506.08889), section 3.2: a forward pass in the manner of FlashAttention keeps the
largest logit of each key block, and rescales it by the row's final maximum and sum. No attention map is
ever whole in memory.
"""

from __future__ import annotations

from typing import Literal

import torch

from seer_ray.kernels import cpu, gpu
from seer_ray.kernels.causal import causal

Kind = Literal["max", "mass"]
KINDS: tuple[Kind, ...] = ("max", "mass")

ROWS = 64
"""Query positions that are computed together."""
TILE_NUMBERS = 1 << 18
"""Logits in memory at a time: about what the caches of a CPU hold."""


def attend_with_target(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block: int,
    scale: float,
    first: int = 0,
    kind: Kind = "max",
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of one document, and for its rows from ``first`` on the target of their gate.

    With ``p`` a row's attention probabilities, the share of a block is

    - ``max``: the largest ``p`` in the block, then the largest of the group's heads (the published target;
      the ranking of the selector ``oracle``);
    - ``mass``: the sum of ``p`` over the block, averaged over the group's heads. The average, since a group
      reads one selection: the blocks that rank first are those that keep most of its mean mass.

    Only blocks that end before the row's own block begins have a share; the shares of a row sum to 1. Rows
    of block 0 have none, theirs are all 0. fp32 arithmetic whatever the inputs (fp64 for fp64).

    Args:
        q: rotated queries, ``[tokens, q_heads, head_dim]``; positions count from the document's start.
        k, v: keys (rotated) and values, ``[tokens, kv_heads, head_dim]``.
        block: tokens a block.
        scale: of the logits.
        first: first row with a target. Rows before it only attend.
        kind: see above.
        sinks: of the output, see ``kernels.attend``. Shares are of what the tokens get, as those of the
            selector ``oracle`` are.

    Returns:
        Output in the dtype of ``v``, ``[tokens, q_heads, head_dim]``, and the target in fp32,
        ``[tokens - first, kv_heads, (tokens - 1) // block]``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind}: must be one of {', '.join(KINDS)}")
    if first == len(q):
        none = torch.zeros(0, k.shape[1], max(0, len(q) - 1) // block, device=q.device)
        return causal(q, k, v, scale, sinks=sinks), none
    if kind == "max" and cpu.takes_target(q, block) and cpu.takes_rows(k, v):
        out, sums = _attend_with_sums(q, k, v, scale)
        target = cpu.target_max(q, k, sums, block, scale, first)
        return (out if sinks is None else causal(q, k, v, scale, sinks=sinks)), target
    if gpu.takes(q) and fits(block, q.shape[2]):
        from seer_ray.kernels import triton_target

        late, target = triton_target.attend_rows(q, k, v, block, scale, first, kind)
    else:
        late, target = reference(q, k, v, block, scale, first, kind)
    if sinks is not None:
        return causal(q, k, v, scale, sinks=sinks), target
    if first == 0:
        return late, target
    return torch.cat((causal(q[:first], k[:first], v[:first], scale), late)), target


def fits(block: int, dim: int) -> bool:
    """Whether the Triton kernel is made for this shape."""
    return block >= 16 and block & (block - 1) == 0 and dim <= gpu.MAX_DIM


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block: int,
    scale: float,
    first: int = 0,
    kind: Kind = "max",
) -> tuple[torch.Tensor, torch.Tensor]:
    """``attend_with_target`` in torch, without the output of the rows before ``first``.

    Memory beyond the results: ``O(ROWS * q_heads * blocks)``.
    """
    with torch.autocast(q.device.type, enabled=False):
        return _reference(q, k, v, block, scale, first, kind)


def _reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int, scale: float, first: int, kind: Kind
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads = k.shape[:2]
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    keys, values = (x.to(wide).transpose(0, 1) for x in (k, v))  # [kv_heads, tokens, head_dim]
    out = torch.empty(tokens - first, *q.shape[1:], dtype=v.dtype, device=q.device)
    target = torch.zeros(tokens - first, heads, max(0, tokens - 1) // block, dtype=wide, device=q.device)
    for start in range(first, tokens, ROWS):
        rows = slice(start - first, min(start + ROWS, tokens) - first)
        values_out, shares = _rows(q[start : start + ROWS].to(wide) * scale, keys, values, block, start, kind)
        out[rows] = values_out.to(v.dtype)
        blocks = min(shares.shape[2], target.shape[2])
        target[rows, :, :blocks] = shares[:, :, :blocks]
    return out, target.float() if wide == torch.float32 else target


def normalise(shares: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Shares ``[rows, kv_heads, blocks]`` over the blocks before ``own [rows]``, summing to 1 or all 0."""
    earlier = torch.arange(shares.shape[2], device=shares.device) < own.unsqueeze(1)  # [rows, blocks]
    shares = torch.where(earlier.unsqueeze(1), shares, 0)
    total = shares.sum(2, keepdim=True)
    return torch.where(total > 0, shares / total, 0)


def _rows(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: int, start: int, kind: Kind
) -> tuple[torch.Tensor, torch.Tensor]:
    """One chunk of rows over all keys up to its end: output and shares ``[rows, kv_heads, blocks]``."""
    rows, q_heads, dim = q.shape
    heads, end = keys.shape[0], start + rows
    group = q_heads // heads
    # The heads of a group share K and V: they are rows of one product. [kv_heads, group * rows, head_dim]
    q = q.view(rows, heads, group, dim).permute(1, 2, 0, 3).reshape(heads, group * rows, dim)
    position = torch.arange(start, end, device=q.device).repeat(group).unsqueeze(1)
    tile = max(1, TILE_NUMBERS // (heads * group * rows * block)) * block
    lowest = torch.finfo(q.dtype).min
    peak = torch.full((heads, group * rows, 1), lowest, dtype=q.dtype, device=q.device)
    total = torch.zeros_like(peak)
    acc = torch.zeros_like(q)
    parts = []  # log of each block's share before the division by the row's sum
    for at in range(0, end, tile):
        stop = min(at + tile, end)
        logits = torch.matmul(q, keys[:, at:stop].transpose(1, 2))  # [kv_heads, group * rows, tokens of tile]
        if stop > start:
            future = torch.arange(at, stop, device=q.device) > position
            logits.masked_fill_(future, lowest)
        width = -(-(stop - at) // block)
        whole = logits
        if width * block > stop - at:
            whole = torch.nn.functional.pad(logits, (0, width * block - (stop - at)), value=lowest)
        largest = whole.unflatten(2, (width, block)).amax(3)  # [kv_heads, group * rows, blocks of tile]
        higher = torch.maximum(peak, largest.amax(2, keepdim=True))
        p = whole.sub_(higher).exp_()
        shrink = (peak - higher).exp_()
        if kind == "max":
            parts.append(largest)
            more = p.sum(2, keepdim=True)
        else:
            sums = p.unflatten(2, (width, block)).sum(3)
            parts.append(sums.log() + higher)
            more = sums.sum(2, keepdim=True)
        total = total * shrink + more
        acc = torch.baddbmm(acc.mul_(shrink), p[:, :, : stop - at], values[:, at:stop])
        peak = higher
    shares = torch.cat(parts, 2).sub_(peak).exp_().div_(total)
    shares = shares.unflatten(1, (group, rows))  # [kv_heads, group, rows, blocks]
    shares = shares.amax(1) if kind == "max" else shares.mean(1)
    own = torch.arange(start, end, device=q.device) // block
    out = (acc / total).unflatten(1, (group, rows)).permute(2, 0, 1, 3).reshape(rows, q_heads, dim)
    return out, normalise(shares.transpose(0, 1), own)


def _attend_with_sums(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention on the CPU, and the log of each row's sum, fp32 ``[q_heads, tokens]``."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.to(q.dtype).transpose(0, 1).repeat_interleave(group, 0).unsqueeze(0) for x in (k, v))
    out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q.transpose(0, 1).unsqueeze(0), k, v, is_causal=True, scale=scale
    )
    return out[0].transpose(0, 1).to(v.dtype), sums[0].float()
