"""Dense causal attention of one chunk of a prompt over the pages written so far."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def prefill(q: torch.Tensor, kv: torch.Tensor, pages: torch.Tensor, start: int, scale: float) -> torch.Tensor:
    """Token ``i`` of the chunk stands at position ``start + i`` and sees all positions up to its own.

    Args:
        q: rotated queries of the chunk, ``[tokens, q_heads, head_dim]``.
        kv: ``[pages, kv_heads, 2, block, head_dim]``, the chunk's own K and V already appended.
        pages: the sequence's pages up to the end of the chunk, ``[n]``.
        start: position of the chunk's first token.
        scale: of the logits.

    Returns:
        ``[tokens, q_heads, head_dim]``.
    """
    tokens, q_heads, dim = q.shape
    heads, end = kv.shape[1], start + tokens
    k, v = (
        kv[pages, :, part].transpose(0, 1).reshape(heads, -1, dim)[:, :end] for part in (0, 1)
    )  # [kv_heads, end, head_dim]
    group = q_heads // heads
    if start == 0:
        k, v = (x.repeat_interleave(group, dim=0).unsqueeze(0) for x in (k, v))
        out = scaled_dot_product_attention(q.transpose(0, 1).unsqueeze(0), k, v, is_causal=True, scale=scale)
        return out[0].transpose(0, 1)
    # A group shares its K and V: stack its query heads along the rows instead of copying K and V.
    stacked = q.view(tokens, heads, group, dim).permute(1, 2, 0, 3).reshape(1, heads, group * tokens, dim)
    position = torch.arange(start, end, device=q.device).repeat(group)
    mask = torch.arange(end, device=q.device) <= position.unsqueeze(1)
    out = scaled_dot_product_attention(stacked, k.unsqueeze(0), v.unsqueeze(0), attn_mask=mask, scale=scale)
    return out.view(heads, group, tokens, dim).permute(2, 0, 1, 3).reshape(tokens, q_heads, dim)
