"""Decode attention over selected pages in Triton: ``attend`` on a GPU.

One program reads one split of ``SPLIT_TOKENS`` tokens of one row and KV head with all query heads of the
group, of all queries of the row, packed into one tile. A second launch (``triton_fold``) folds the partial
results of a row from left to right. The tree of additions depends on the row's own count alone: not on its
batch mates, the padded width or the number of processors. Of a cache in 8 bits, scales of K multiply the
logits and those of V the shares.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.launch import INTERPRETED, LIFT, power_of_two
from seer_ray.kernels.quantise import KV, tensors
from seer_ray.kernels.spans import Spans
from seer_ray.kernels.triton_fold import FOLD, fold_splits, sink_share

SPLIT_TOKENS = 256
"""Tokens behind one partial result. For a group of 4 the partials cost 3 % of the bytes of K and V."""
TILE_NUMBERS = {2: 8192, 4: 2048}
"""Of a K tile, by bytes a number of q. In 16 bits, two buffers of K and V and three programs fit on one
processor of an H100 or H200; in fp32 (no tensor cores) what fits in the registers. Half of it for
K and V in 8 bits, which are converted in registers."""
STAGES = 3
WARPS = 4
LOWEST = tl.constexpr(-3e38)
"""Below every logit, and finite."""
# Whether one of these is a multiple of 16 is not worth a kernel of its own.
VARYING = [
    "splits",
    "queries",
    "window",
    "ids_row",
    "ids_head",
    "counts_row",
    "counts_head",
    "tails_row",
    "skips_row",
]


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
    """See ``kernels.attend``. A row whose count is 0 gives zeros.

    Allocates its result and its partials from torch's caching allocator, which a CUDA graph may capture.
    """
    queries, q_heads, dim = q.shape
    rows, heads, block, width = len(page_ids), kv.shape[1], kv.shape[3], page_ids.shape[2]
    group = q_heads // heads
    numbers, scales = tensors(kv)
    if scales is None:
        q = q.to(kv.dtype)
    if q.stride(2) != 1:
        q = q.contiguous()
    most = 1 if spans is None else spans.most
    shape = tiling(dim, group, block, q.element_size(), scales is not None, most)
    extras = {"SKIPS": skips is not None, "SINKS": sinks is not None, "SPANS": most if spans else 0}
    splits = -(-width // shape["SPLIT_PAGES"])
    # Queries of no row give zeros.
    made = torch.empty if spans is None else torch.zeros
    out = made(queries, q_heads, dim, dtype=q.dtype, device=q.device)
    # Sums and peaks lie behind the weighted values.
    partials = torch.empty(queries * q_heads * splits * (dim + 2), dtype=torch.float32, device=q.device)
    starts, lives = (tails, tails) if spans is None else (spans.starts, spans.lives)
    attend_splits[(splits, heads, rows)](
        q,
        numbers,
        numbers if scales is None else scales,
        page_ids,
        counts,
        tails,
        tails if skips is None else skips,
        starts,
        lives,
        tails if sinks is None else sinks,
        out,
        partials,
        scale * 1.4426950408889634,
        splits,
        queries,
        -1 if window is None else window,
        q.stride(0),
        q.stride(1),
        page_ids.stride(0),
        page_ids.stride(1),
        page_ids.stride(2),
        counts.stride(0),
        counts.stride(1),
        tails.stride(0),
        0 if skips is None else skips.stride(0),
        **shape,
        **extras,
        WINDOW=window is not None,
        STAGES=STAGES,
        INTERPRETED=INTERPRETED,
    )
    if splits > 1:
        fold_splits[(q_heads, rows, most)](
            counts,
            tails,
            starts,
            lives,
            tails if sinks is None else sinks,
            partials,
            out,
            splits,
            queries,
            counts.stride(0),
            counts.stride(1),
            tails.stride(0),
            GROUP=group,
            DIM=dim,
            DIM_PADDED=shape["DIM_PADDED"],
            BLOCK=block,
            SPANS=extras["SPANS"],
            SPLIT_PAGES=shape["SPLIT_PAGES"],
            FOLD=FOLD,
            SINKS=extras["SINKS"],
            num_warps=WARPS,
        )
    return out


def tiling(dim: int, group: int, block: int, itemsize: int, quantised: bool, most: int = 1) -> dict[str, int]:
    """Constants of the kernel for these shapes and so many queries a row at most; nothing else may enter, or
    rows would depend on mates."""
    padded = max(16, power_of_two(dim))
    return {
        "GROUP": group,
        "GROUP_PADDED": max(16, power_of_two(group * most)),
        "DIM": dim,
        "DIM_PADDED": padded,
        "BLOCK": block,
        "TILE": max(16, min(64, TILE_NUMBERS[itemsize] // (1 + quantised) // padded)),
        "SPLIT_PAGES": max(1, SPLIT_TOKENS // block),
        "QUANTISED": quantised,
        "num_warps": 2 * WARPS if itemsize == 4 and (quantised or most > 1) else WARPS,
    }


@triton.jit(do_not_specialize=VARYING)
def attend_splits(
    q_ptr,
    kv_ptr,
    scales_ptr,
    ids_ptr,
    counts_ptr,
    tails_ptr,
    skips_ptr,
    starts_ptr,
    lives_ptr,
    sinks_ptr,
    out_ptr,
    partials_ptr,
    scale,  # of logits to the base 2
    splits,
    queries,
    window,
    q_row,
    q_head,
    ids_row,
    ids_head,
    ids_slot,
    counts_row,
    counts_head,
    tails_row,
    skips_row,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT_PAGES: tl.constexpr,
    QUANTISED: tl.constexpr,
    SKIPS: tl.constexpr,
    SINKS: tl.constexpr,
    SPANS: tl.constexpr,  # queries of a row at most; 0: one each, in order
    WINDOW: tl.constexpr,
    STAGES: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    split = tl.program_id(0)
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    count = tl.load(counts_ptr + row * counts_row + head * counts_head).to(tl.int32)
    first = split * SPLIT_PAGES
    if (first >= count) & (split > 0):
        return
    tail = tl.load(tails_ptr + row * tails_row).to(tl.int32)
    member = tl.arange(0, GROUP_PADDED)  # query heads of the group, query by query
    if SPANS:
        live = tl.load(lives_ptr + row).to(tl.int32)
        if live == 0:
            return
        query = tl.load(starts_ptr + row) + member // GROUP
        asked = member < live * GROUP
    else:
        live = 1
        query = row + member // GROUP
        asked = member < GROUP
    # Tokens of this split that each query sees.
    ends = (count - first - 1) * BLOCK + tail - (live - 1) + member // GROUP
    # Tokens of this split: all, or up to the end of the row.
    tokens = tl.minimum((count - first - 1) * BLOCK + tail, SPLIT_PAGES * BLOCK)
    if SKIPS:  # of the row's first page, which is in the first split
        skip = tl.where(split == 0, tl.load(skips_ptr + row * skips_row).to(tl.int32), 0)

    # All page ids before the loop: a load inside it would cost the pipeline its second buffer.
    slot = tl.arange(0, SPLIT_PAGES)
    ids = tl.load(
        ids_ptr + row * ids_row + head * ids_head + (first + slot) * ids_slot,
        mask=first + slot < count,
        other=0,
    ).to(tl.int32)

    channel = tl.arange(0, DIM_PADDED)
    row_in_tile = tl.arange(0, TILE)
    q = tl.load(
        q_ptr
        + query[:, None] * q_row
        + (head * GROUP + (member % GROUP)[:, None]) * q_head
        + channel[None, :],
        mask=asked[:, None] & (channel[None, :] < DIM),
        other=0.0,
    )
    if INTERPRETED:  # its products of 16-bit numbers are not to be trusted
        q = q.to(tl.float32)
    page_stride = heads.to(tl.int64) * (2 * BLOCK)
    kv_head = kv_ptr + head.to(tl.int64) * (2 * BLOCK * DIM)
    scales_ptr += head.to(tl.int64) * (2 * BLOCK)

    peak = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PADDED], tl.float32)
    values = tl.zeros([GROUP_PADDED, DIM_PADDED], tl.float32)
    for step in tl.range(0, tl.cdiv(tokens, TILE), num_stages=STAGES):
        token = step * TILE + row_in_tile
        if TILE <= BLOCK:  # a part of one page
            page = tl.sum(tl.where(slot == step // (BLOCK // TILE), ids, 0), 0)
            first_in_page = (step % (BLOCK // TILE)) * TILE
            k_ptr = kv_head + page * (page_stride * DIM) + first_in_page * DIM
            at = k_ptr + (row_in_tile[:, None] * DIM + channel[None, :])
            scales_at = scales_ptr + page * page_stride + first_in_page + row_in_tile
        else:  # several pages
            page = tl.sum(tl.where(slot[None, :] == (token // BLOCK)[:, None], ids[None, :], 0), 1)
            start = page * page_stride + token % BLOCK
            at = kv_head + (start * DIM)[:, None] + channel[None, :]
            scales_at = scales_ptr + start
        # What was never written may be NaN: it is not loaded.
        there = token < tokens
        if SKIPS:
            there = there & (token >= skip)
        mask = there[:, None] & (channel[None, :] < DIM)
        k = tl.load(at, mask=mask, other=0.0)
        v = tl.load(at + BLOCK * DIM, mask=mask, other=0.0)
        k = k.to(q.dtype)  # of 8 bits: exactly
        v = v.to(q.dtype)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if QUANTISED:
            logits *= tl.load(scales_at, mask=there, other=0.0)[None, :]
        seen = there[None, :]
        if SPANS:
            seen = seen & (token[None, :] < ends[:, None])
        if WINDOW:
            seen = seen & (token[None, :] >= ends[:, None] - window)
        logits = tl.where(seen, logits, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 1))
        if SKIPS or SPANS or WINDOW:  # nothing seen yet: no -inf - -inf
            higher = tl.maximum(higher, LOWEST)
        p = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        if QUANTISED:
            p *= (tl.load(scales_at + BLOCK, mask=there, other=0.0) * LIFT)[None, :]
        values = tl.dot(p.to(v.dtype), v, acc=values * shrink[:, None], input_precision="ieee")
        peak = higher

    if QUANTISED:
        values *= 1.0 / LIFT
    mask = asked[:, None] & (channel[None, :] < DIM)
    place = query * heads * GROUP + head * GROUP + member % GROUP  # of the result
    if count <= SPLIT_PAGES:
        if SINKS:
            total += sink_share(sinks_ptr, head * GROUP + member % GROUP, asked, peak)
        share = values / tl.where(total > 0, total, 1.0)[:, None]
        at = out_ptr + (place * DIM)[:, None] + channel[None, :]
        tl.store(at, share.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        part = place * splits + split
        parts = queries.to(tl.int64) * heads * GROUP * splits
        tl.store(partials_ptr + (part * DIM)[:, None] + channel[None, :], values, mask=mask)
        peaks = partials_ptr + parts * DIM + part
        tl.store(peaks, peak, mask=asked)
        tl.store(peaks + parts, total, mask=asked)
