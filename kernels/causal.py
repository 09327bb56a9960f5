"""Causal attention of one whole document in torch, with its gradient."""

from __future__ import annotations

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

LOGITS = 2**25
"""That have a mask at a time, at most: 128 MiB in fp32."""


def causal(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """A token sees all positions up to its own, or the last ones.

    Args:
        q: rotated queries, ``[tokens, q_heads, head_dim]``.
        k, v: keys (rotated) and values, ``[tokens, kv_heads, head_dim]``.
        scale: of the logits.
        window: a token sees so many positions, its own included; None: all.
        sinks: see ``kernels.attend``.

    Returns:
        ``[tokens, q_heads, head_dim]`` in the dtype of ``v``.
    """
    tokens, q_heads, _ = q.shape
    dtype = v.dtype
    q, k, v = (x.transpose(0, 1).repeat_interleave(q_heads // x.shape[1], 0) for x in (q, k, v))
    reach = tokens if window is None else min(window, tokens)
    if sinks is None and reach == tokens:
        out = scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, scale=scale)[0]
        return out.transpose(0, 1).to(dtype)
    rows = max(1, LOGITS // (q_heads * reach))
    parts = []
    for start in range(0, tokens, rows):
        stop, first = min(start + rows, tokens), max(0, start - reach + 1)
        position = torch.arange(start, stop, device=q.device).unsqueeze(1)
        key = torch.arange(first, stop, device=q.device)
        mask = (key <= position) & (key > position - reach)
        keys, values = k[:, first:stop], v[:, first:stop]
        if sinks is not None:  # a key more, of zeros: its logit is what the mask says
            keys, values = pad(keys, (0, 0, 0, 1)), pad(values, (0, 0, 0, 1))
            bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))
            logit = sinks.to(q.dtype).view(-1, 1, 1).expand(-1, len(mask), 1)
            mask = torch.cat([bias.expand(q_heads, -1, -1), logit], dim=2)
        some = q[:, start:stop]
        parts.append(
            scaled_dot_product_attention(some[None], keys[None], values[None], attn_mask=mask, scale=scale)[0]
        )
    return torch.cat(parts, 1).transpose(0, 1).to(dtype)
