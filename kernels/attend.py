"""Decode attention over selected pages, of one new token a row or of a few."""

from __future__ import annotations

import torch

from seer_ray.kernels import cpu, gpu
from seer_ray.kernels.quantise import KV, tensors
from seer_ray.kernels.spans import Spans

SPLIT = 8
"""Pages that the torch path folds into one partial result: 512 tokens at the default block size."""


def attend(
    q: torch.Tensor,
    kv: KV,
    page_ids: torch.Tensor,
    counts: torch.Tensor,
    tails: torch.Tensor,
    scale: float,
    skips: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    spans: Spans | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Softmax attention over the selection; an identity list makes it dense paged attention.

    Split-KV with an in-order combine: partial results of so many tokens each are folded from left to
    right. The split is fixed and every product has a fixed shape, so a row's bits do not depend on how
    long its batch mates are: folding in an empty split changes none.

    Args:
        q: rotated queries, ``[rows, q_heads, head_dim]``.
        kv: ``[pages, kv_heads, 2, block, head_dim]``.
        page_ids: ``[rows, kv_heads, k]`` int64, last axis contiguous, see the package docstring.
        counts: ``[rows, kv_heads]`` int64, at least 1.
        tails: valid tokens in each row's last page, ``[rows]`` int64.
        scale: of the logits.
        skips: tokens at the start of each row's first page that are not seen, as a window leaves them,
            ``[rows]`` int64, at most ``block``; None: none.
        sinks: a logit of each query head that takes its share of the softmax and has no value (gpt-oss),
            fp32 ``[q_heads]``; None: none.
        spans: rows have several queries, which read K and V once: ``q`` and the result are ``[queries,
            q_heads, head_dim]``, and what is said of a row holds for its last query. None: one each.
        window: a query sees the last tokens only, so many, its own included, and the list begins with the
            page of the first of them; None: all.

    Returns:
        ``[rows, q_heads, head_dim]``.
    """
    if gpu.takes(kv) and gpu.fits(kv):
        from seer_ray.kernels import triton_attend

        return triton_attend.attend(q, kv, page_ids, counts, tails, scale, skips, sinks, spans, window)
    if cpu.takes(kv, q.shape[1] // kv.shape[1], kv.shape[3], kv.shape[4]):
        return cpu.attend(q, kv, page_ids, counts, tails, scale, skips, sinks, spans, window)
    return reference(q, kv, page_ids, counts, tails, scale, skips, sinks, spans, window)


def reference(
    q: torch.Tensor,
    kv: KV,
    page_ids: torch.Tensor,
    counts: torch.Tensor,
    tails: torch.Tensor,
    scale: float,
    skips: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    spans: Spans | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """The definition of ``attend`` in torch: a query of a span is a row of its own."""
    heads, block = kv.shape[1], kv.shape[3]
    if spans is not None:
        seen, live = spans.seen((counts - 1) * block + tails.unsqueeze(1))  # [queries, kv_heads]
        seen = seen.clamp(min=1)
        own = page_ids[spans.row_of], (seen - 1) // block + 1, (seen[:, 0] - 1) % block + 1
        before = None if skips is None else skips[spans.row_of]
        out = reference(q, kv, *own, scale, before, sinks, None, window)
        return out.masked_fill(~live.view(-1, 1, 1), 0)
    if window is not None:
        hidden = ((counts - 1) * block + tails.unsqueeze(1))[:, 0] - window
        skips = torch.maximum(hidden, skips if skips is not None else torch.zeros_like(hidden))
    rows, q_heads, dim = q.shape
    # Reading one scalar of a CPU tensor is free; on a device the full capacity is walked instead.
    used = page_ids.shape[2] if q.is_cuda else int(counts.max())
    head = torch.arange(heads, device=q.device).view(1, heads, 1)
    slots = 2 * (page_ids * heads + head)  # of K; that of V is one below
    valid = ((counts - 1) * block + tails.unsqueeze(1)).view(rows * heads, 1, 1)  # tokens
    first = 0 if skips is None else skips.repeat_interleave(heads).view(rows * heads, 1, 1)
    # Products in fp32: logits of 80 have steps of 0.5 in bfloat16.
    grouped = q.reshape(rows * heads, q_heads // heads, dim).float()

    state = None
    for start in range(0, used, SPLIT):
        ids = slots[:, :, start : start + SPLIT]
        if ids.shape[2] < SPLIT:
            ids = torch.nn.functional.pad(ids, (0, SPLIT - ids.shape[2]))
        # Slots past the count may hold anything: they read page 0.
        position = torch.arange(start, start + SPLIT, device=q.device)
        ids = torch.where(position < counts.unsqueeze(2), ids, 0).reshape(-1)
        k, v = (_take(kv, at).view(rows * heads, SPLIT * block, dim) for at in (ids, ids + 1))
        token = torch.arange(start * block, (start + SPLIT) * block, device=q.device)
        dead = (token >= valid) | (token < first)  # [rows * heads, 1, tokens]
        logits = torch.bmm(grouped, k.transpose(1, 2).float()).mul_(scale)
        logits.masked_fill_(dead, float("-inf"))
        _clear_tail(v.view(rows * heads, SPLIT, block, dim), counts.reshape(-1) - 1 - start, dead, block)
        state = _fold(state, logits, v)
    assert state is not None
    peak, total, out = state
    if sinks is not None:
        # May be infinite, where it takes all there is.
        total = total + torch.exp(sinks.view(heads, -1, 1).repeat(rows, 1, 1) - peak)
    return (out / total).to(q.dtype).view(rows, q_heads, dim)


def _take(kv: KV, slots: torch.Tensor) -> torch.Tensor:
    """A copy of K or V of some (page, head): ``[slots, block, head_dim]``, in fp32 if it was quantised."""
    numbers, scales = tensors(kv)
    found = numbers.flatten(0, 2).index_select(0, slots)
    if scales is None:
        return found
    return found.float() * scales.flatten(0, 2).index_select(0, slots).unsqueeze(-1)


def _clear_tail(v: torch.Tensor, last: torch.Tensor, dead: torch.Tensor, block: int) -> None:
    """Zero the unwritten slots of the last page where it is in this split: 0 · NaN would be NaN."""
    here = (last >= 0) & (last < v.shape[1])
    row = torch.arange(v.shape[0], device=v.device)
    slot = last.clamp(0, v.shape[1] - 1)
    unwritten = dead.view(v.shape[0], -1, block)[row, slot] & here.unsqueeze(1)
    v[row, slot] = v[row, slot].masked_fill(unwritten.unsqueeze(2), 0.0)


def _fold(
    state: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None, logits: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step of online softmax: (max, sum, weighted values), all fp32."""
    peak = logits.amax(-1, keepdim=True)
    if state is not None:
        peak = torch.maximum(peak, state[0])
    # The first split holds at least one token, so peak is finite from then on.
    p = torch.exp(logits - peak)
    total = p.sum(-1, keepdim=True)
    out = torch.bmm(p.to(v.dtype), v).float()
    if state is None:
        return peak, total, out
    shrink = torch.exp(state[0] - peak)
    return peak, total + state[1] * shrink, out + state[2] * shrink
