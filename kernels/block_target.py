"""What a prefill gate is trained to say: attention by pairs of blocks, streamed together with its output.

SeerAttention (arXiv 2410.13276), section 3: the largest attention probability of a block of queries in a
block of keys. The map of one block of rows is in memory at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from seer_ray.kernels.causal import causal

LOGITS = 1 << 24
"""In memory at a time, at most, unless one KV head's block of rows is more."""


class BlockMaps(NamedTuple):
    """Attention of one document by pairs of blocks, ``[q_heads, q_blocks, k_blocks]``; 0 where keys are
    later. The last block may be open: it has the tokens that it has."""

    largest: torch.Tensor
    """Of a query of the block and a key of the block, each row divided by its sum."""
    mass: torch.Tensor
    """Sum over the keys of the block, mean over the queries of the block: a row sums to 1."""


def attend_with_blocks(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block: int,
    scale: float,
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, BlockMaps]:
    """Causal attention of one document, and its maps by blocks. fp32 arithmetic, fp64 for fp64.

    Args:
        q: rotated queries, ``[tokens, q_heads, head_dim]``; positions count from the document's start.
        k, v: keys (rotated) and values, ``[tokens, kv_heads, head_dim]``.
        block: tokens a block, of queries and of keys.
        scale: of the logits.
        sinks: of the output, see ``kernels.attend``; the maps are of what the tokens get.

    Returns:
        Output in the dtype of ``v``, ``[tokens, q_heads, head_dim]``, and the maps.
    """
    with torch.autocast(q.device.type, enabled=False):
        out, maps = _stream(q, k, v, block, scale)
    return (out if sinks is None else causal(q, k, v, scale, sinks=sinks)), maps


def _stream(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int, scale: float
) -> tuple[torch.Tensor, BlockMaps]:
    (tokens, q_heads, dim), heads = q.shape, k.shape[1]
    group, blocks = q_heads // heads, -(-tokens // block)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    keys, values = (x.to(wide).transpose(0, 1) for x in (k, v))  # [kv_heads, tokens, head_dim]
    queries = (q.to(wide) * scale).view(tokens, heads, group, dim).permute(1, 2, 0, 3)
    out = torch.empty(tokens, q_heads, dim, dtype=v.dtype, device=q.device)
    largest, mass = (torch.zeros(q_heads, blocks, blocks, dtype=wide, device=q.device) for _ in range(2))
    for row in range(blocks):
        start, end = row * block, min((row + 1) * block, tokens)
        some = max(1, LOGITS // (group * block * (row + 1) * block))
        future = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).triu(1)
        for low in range(0, heads, some):
            h, of = slice(low, low + some), slice(low * group, min(low + some, heads) * group)
            rows = queries[h, :, start:end].flatten(1, 2)  # [some, group * rows, head_dim]
            logits = torch.matmul(rows, keys[h, :end].transpose(1, 2)).unflatten(1, (group, end - start))
            logits[..., start:].masked_fill_(future, float("-inf"))
            p = logits.softmax(-1)
            found = torch.matmul(p.flatten(1, 2), values[h, :end]).unflatten(1, (group, end - start))
            out[start:end, of] = found.flatten(0, 1).transpose(0, 1).to(out.dtype)
            # Over the rows first, which lie side by side; [some * group, k_blocks, block] is then little.
            most, mean = (
                torch.nn.functional.pad(x, (0, (row + 1) * block - end)).view(-1, row + 1, block)
                for x in (p.amax(2), p.mean(2))
            )
            largest[of, row, : row + 1] = most.amax(2)
            mass[of, row, : row + 1] = mean.sum(2)
    return out, BlockMaps(largest / largest.sum(2, keepdim=True), mass)
