"""Causal attention of packed prompt chunks over their pages: over all of them, or over selected ones."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from seer_ray.kernels import cpu, gpu
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.quantise import KV, Quantised


def prefill(
    q: torch.Tensor,
    kv: KV,
    chunks: Chunks,
    scale: float,
    page_ids: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """A token sees all positions of its sequence up to its own; with a selection, those in listed pages.

    Args:
        q: rotated queries of the packed tokens, ``[tokens, q_heads, head_dim]``.
        kv: ``[pages, kv_heads, 2, block, head_dim]``, the chunks' own K and V already appended.
        chunks: which tokens belong together, and where their pages are.
        scale: of the logits.
        page_ids: pages that each tile of ``chunks.tiles`` reads, ``[tiles, kv_heads, k]`` int64, ascending,
            the tile's own page last; see the package docstring. Or ``[tiles, q_heads, k]``: each query head
            has its own. None: all.
        counts: ``[tiles, kv_heads]`` int64, or ``[tiles, q_heads]``, at least 1.
        window: a token sees so many positions, its own included, and pages before those are not read; not
            with a selection. None: all.
        sinks: see ``kernels.attend``.

    Returns:
        ``[tokens, q_heads, head_dim]``.
    """
    if gpu.takes(kv) and gpu.fits(kv):
        from seer_ray.kernels import triton_prefill

        return triton_prefill.prefill(q, kv, chunks, scale, page_ids, counts, window, sinks)
    if cpu.takes(kv, 1, kv.shape[3], q.shape[2]):
        return cpu.prefill(q, kv, chunks, scale, page_ids, counts, window, sinks)
    return reference(q, kv, chunks, scale, page_ids, counts, window, sinks)


def reference(
    q: torch.Tensor,
    kv: KV,
    chunks: Chunks,
    scale: float,
    page_ids: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition of ``prefill`` in torch."""
    dtype = q.dtype
    if isinstance(kv, Quantised):
        q = q.float()
    if page_ids is None or counts is None:
        out = [_dense(part, kv, pages, start, scale, window, sinks) for part, pages, start in chunks.split(q)]
    else:
        out = [
            _sparse(
                q[t.first : t.first + t.end - t.start], kv, ids, count, t.start % chunks.block, scale, sinks
            )
            for t, ids, count in zip(chunks.tiles, page_ids, counts, strict=True)
        ]
    return (torch.cat(out) if len(out) > 1 else out[0]).to(dtype)


def _dense(
    q: torch.Tensor,
    kv: KV,
    pages: torch.Tensor,
    start: int,
    scale: float,
    window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One chunk, ``pages [n]`` up to its end."""
    tokens, _, dim = q.shape
    heads, block, end = kv.shape[1], kv.shape[3], start + tokens
    first = 0 if window is None else max(0, start - window + 1) // block  # page
    k, v = (
        kv[pages[first:], :, part].transpose(0, 1).reshape(heads, -1, dim)[:, : end - first * block]
        for part in (0, 1)
    )  # [kv_heads, keys, head_dim]
    if start == 0 and sinks is None and (window is None or window >= end):
        group = q.shape[1] // heads
        k, v = (x.repeat_interleave(group, dim=0).unsqueeze(0) for x in (k, v))
        out = scaled_dot_product_attention(q.transpose(0, 1).unsqueeze(0), k, v, is_causal=True, scale=scale)
        return out[0].transpose(0, 1)
    position = torch.arange(start, end, device=q.device).unsqueeze(1)
    key = torch.arange(first * block, end, device=q.device)
    seen = key <= position
    if window is not None:
        seen &= key > position - window
    return _grouped(q, k, v, seen, scale, sinks)


def _sparse(
    q: torch.Tensor,
    kv: KV,
    ids: torch.Tensor,
    counts: torch.Tensor,
    offset: int,
    scale: float,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One tile, its first token at ``offset`` in the last of the pages ``ids``, ``[kv_heads, k]`` or of each
    query head."""
    (tokens, _, dim), (heads, width), block = q.shape, ids.shape, kv.shape[3]
    ids = torch.where(torch.arange(width, device=q.device) < counts.unsqueeze(1), ids, 0)
    head = torch.arange(heads, device=q.device).unsqueeze(1) // (heads // kv.shape[1])
    token = torch.arange(width * block, device=q.device)
    last = (counts - 1).unsqueeze(1) * block + offset + torch.arange(tokens, device=q.device)
    seen = token <= last.unsqueeze(2)  # [kv_heads, tokens, width * block]
    # What no token sees may never have been written: 0 · NaN would be NaN.
    unseen = ~seen[:, -1].unsqueeze(2)
    k, v = kv[ids, head].transpose(1, 2).reshape(heads, 2, -1, dim).unbind(1)
    return _grouped(q, k.masked_fill(unseen, 0), v.masked_fill(unseen, 0), seen, scale, sinks)


def _grouped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """``k, v [kv_heads, keys, head_dim]``, ``seen [tokens, keys]`` or by KV head. A group shares its K and V:
    its query heads are stacked along the rows instead of copying K and V."""
    tokens, q_heads, dim = q.shape
    heads = k.shape[0]
    group = q_heads // heads
    stacked = q.view(tokens, heads, group, dim).permute(1, 2, 0, 3).reshape(1, heads, group * tokens, dim)
    mask = seen.tile(group, 1)
    if sinks is not None:  # a key more, of zeros: its logit is what the mask says
        k, v = (torch.nn.functional.pad(x, (0, 0, 0, 1)) for x in (k, v))
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))
        logit = sinks.to(q.dtype).view(heads, group, 1).expand(-1, -1, tokens).reshape(heads, -1, 1)
        mask = torch.cat([bias.expand(heads, -1, -1), logit], dim=2)
    out = scaled_dot_product_attention(stacked, k.unsqueeze(0), v.unsqueeze(0), attn_mask=mask, scale=scale)
    return out.view(heads, group, tokens, dim).permute(2, 0, 1, 3).reshape(tokens, q_heads, dim)
