"""Partial results of decode attention, folded from left to right: the second launch of ``triton_attend``."""

from __future__ import annotations

import triton
import triton.language as tl

FOLD = 16
"""Partial results that are read at once when they are folded."""


@triton.jit(do_not_specialize=["splits", "queries", "counts_row", "counts_head", "tails_row"])
def fold_splits(
    counts_ptr,
    tails_ptr,
    starts_ptr,
    lives_ptr,
    sinks_ptr,
    partials_ptr,
    out_ptr,
    splits,
    queries,
    counts_row,
    counts_head,
    tails_row,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    SPANS: tl.constexpr,
    SPLIT_PAGES: tl.constexpr,
    FOLD: tl.constexpr,
    SINKS: tl.constexpr,
):
    q_head = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    q_heads = tl.num_programs(0)
    head = q_head // GROUP
    count = tl.load(counts_ptr + row * counts_row + head * counts_head).to(tl.int32)
    if count <= SPLIT_PAGES:
        return  # written already
    query = row
    if SPANS:
        place = tl.program_id(2)
        asked = tl.load(lives_ptr + row).to(tl.int32)
        if place >= asked:
            return
        query = tl.load(starts_ptr + row) + place
        # What the query sees is all that is folded: its sums are those of a row of its own.
        seen = (count - 1) * BLOCK + tl.load(tails_ptr + row * tails_row).to(tl.int32) - (asked - 1 - place)
        count = tl.cdiv(seen, BLOCK)
    used = tl.cdiv(count, SPLIT_PAGES)
    channel = tl.arange(0, DIM_PADDED)
    index = tl.arange(0, FOLD)
    part = (query * q_heads + q_head) * splits
    parts = queries.to(tl.int64) * q_heads * splits
    values_ptr = partials_ptr + part * DIM
    peaks_ptr = partials_ptr + parts * DIM + part

    peak = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    values = tl.zeros([DIM_PADDED], tl.float32)
    for start in tl.range(0, used, FOLD):
        some = start + index
        live = some < used
        peaks = tl.load(peaks_ptr + some, mask=live, other=float("-inf"))
        totals = tl.load(peaks_ptr + parts + some, mask=live, other=0.0)
        more = tl.load(
            values_ptr + some[:, None] * DIM + channel[None, :],
            mask=live[:, None] & (channel[None, :] < DIM),
            other=0.0,
        )
        higher = tl.maximum(peak, tl.max(peaks, 0))
        weight = tl.exp2(peaks - higher)
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weight * totals, 0)
        values = values * shrink + tl.sum(weight[:, None] * more, 0)
        peak = higher
    if SINKS:
        one = tl.arange(0, 1)
        total += sink_share(sinks_ptr, q_head + one, one == 0, peak)
    out = (values / total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + (query * q_heads + q_head) * DIM + channel, out, mask=channel < DIM)


@triton.jit
def sink_share(sinks_ptr, at, mask, peak):
    """What sinks add to sums that were taken relative to ``peak``, a logit to the base 2."""
    return tl.exp2(tl.load(sinks_ptr + at, mask=mask, other=float("-inf")) * 1.4426950408889634 - peak)
