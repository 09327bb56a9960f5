"""Prefill attention over pages in Triton: ``prefill`` on a GPU.

One program computes up to ``ROWS`` rows of one tile and KV head; a row is one query head of one token, so a
group shares what is read. It walks its list of pages from the first to the last with an online softmax. The
sparse path and the dense one are the same: without a selection the list is the page table.

What a token's result depends on: its own query, the keys and values up to its own position, its place in
its page, and constants of the configuration. Tiles lie on page borders and steps count from position 0, so
neither the other sequences of the pack nor the places where chunks begin and end can change a bit: a step
that lies wholly in a row's future adds exact zeros.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.launch import INTERPRETED, LIFT, power_of_two
from seer_ray.kernels.quantise import KV, tensors
from seer_ray.kernels.triton_attend import LOWEST
from seer_ray.kernels.triton_fold import sink_share

FIELDS = tl.constexpr(6)
"""Of a row of ``Chunks.work``."""


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
    """See ``kernels.prefill``. A tile whose count is 0 gives zeros."""
    tokens, q_heads, dim = q.shape
    kv_heads, block = kv.shape[1], kv.shape[3]
    # Those that have a list of their own: KV heads, or query heads.
    heads = kv_heads if page_ids is None else page_ids.shape[1]
    group = q_heads // heads
    numbers, scales = tensors(kv)
    if scales is None:
        q = q.to(kv.dtype)
    if q.stride(2) != 1:
        q = q.contiguous()
    selected = page_ids is not None and counts is not None
    # By chunk, seen by all heads; or by tile and head.
    lists = page_ids if page_ids is not None else chunks.table.unsqueeze(1).expand(-1, heads, -1)
    if counts is None:
        counts = chunks.work  # not read
    shape = tiling(dim, group, block, q.element_size(), scales is not None)
    parts = triton.cdiv(block * group, shape["ROWS"])
    out = torch.empty(tokens, q_heads, dim, dtype=q.dtype, device=q.device)
    prefill_tiles[(len(chunks.tiles) * heads * parts,)](
        q,
        numbers,
        numbers if scales is None else scales,
        lists,
        counts,
        chunks.work,
        counts if sinks is None else sinks,
        out,
        window or 0,
        scale * 1.4426950408889634,
        heads,
        kv_heads,
        q.stride(0),
        q.stride(1),
        lists.stride(0),
        lists.stride(1),
        lists.stride(2),
        counts.stride(0),
        counts.stride(1),
        GROUP=group,
        SHARING=heads // kv_heads,
        DIM=dim,
        BLOCK=block,
        PARTS=parts,
        SELECTED=selected,
        WINDOWED=window is not None,
        SINKS=sinks is not None,
        INTERPRETED=INTERPRETED,
        **shape,
    )
    return out


def tiling(dim: int, group: int, block: int, itemsize: int, quantised: bool) -> dict[str, int]:
    """Constants of the kernel for these shapes; nothing else may enter, or tokens would depend on mates."""
    padded = max(16, power_of_two(dim))
    if itemsize == 2:
        rows, tile = (128, 64) if padded <= 128 else (64, 32)
    else:  # no tensor cores: what fits into the registers
        rows, tile = 16, max(16, 2048 // padded)
    if quantised:  # converted in registers
        tile = max(16, tile // 2)
    rows = min(rows, max(16, power_of_two(block * group)))
    # More than two pages at once would need more addresses than an A100 has registers for.
    tile = min(tile, max(32, block))
    return {
        "DIM_PADDED": padded,
        "ROWS": rows,
        "TILE": tile,
        "STAGES": 3,
        "QUANTISED": quantised,
        "num_warps": 8 if rows >= 64 or (itemsize == 4 and (quantised or padded > 128)) else 4,
    }


@triton.jit(
    do_not_specialize=["window", "heads", "kv_heads", "ids_row", "ids_head", "counts_row", "counts_head"]
)
def prefill_tiles(
    q_ptr,
    kv_ptr,
    scales_ptr,
    ids_ptr,
    counts_ptr,
    work_ptr,
    sinks_ptr,
    out_ptr,
    window,
    scale,  # of logits to the base 2
    heads,  # with a list of their own
    kv_heads,
    q_row,
    q_head,
    ids_row,
    ids_head,
    ids_slot,
    counts_row,
    counts_head,
    GROUP: tl.constexpr,  # query heads of a list
    SHARING: tl.constexpr,  # lists of a KV head
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SELECTED: tl.constexpr,
    WINDOWED: tl.constexpr,
    SINKS: tl.constexpr,
    QUANTISED: tl.constexpr,
    STAGES: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    part = tl.program_id(0) % PARTS
    head = tl.program_id(0) // PARTS % heads
    work_ptr += (tl.program_id(0) // PARTS // heads) * FIELDS
    block = tl.load(work_ptr + 2).to(tl.int32)
    # Offsets in the page of the tile's first token and of the one past its last.
    low = tl.load(work_ptr + 3).to(tl.int32) - block * BLOCK
    high = tl.load(work_ptr + 4).to(tl.int32) - block * BLOCK
    row = part * ROWS + tl.arange(0, ROWS)
    offset = row // GROUP
    last = tl.minimum((part * ROWS + ROWS - 1) // GROUP, high - 1)
    if (last < low) | (part * ROWS >= high * GROUP):
        return  # none of these rows is in the tile
    live = (offset >= low) & (offset < high)

    if SELECTED:
        index = tl.load(work_ptr)
        count = tl.load(counts_ptr + index * counts_row + head * counts_head).to(tl.int32)
    else:
        index = tl.load(work_ptr + 1)
        count = block + 1
    ids_ptr += index * ids_row + head.to(tl.int64) * ids_head
    # Places in the list's tokens, the tile's page being its last.
    before = (count - 1) * BLOCK
    end = before + last + 1

    channel = tl.arange(0, DIM_PADDED)
    in_tile = tl.arange(0, TILE)
    # Of the page's first token, had the pack all of the page.
    first = tl.load(work_ptr + 5) - low
    mask = live[:, None] & (channel[None, :] < DIM)
    own = head * GROUP + row % GROUP
    q_at = offset * q_row + own * q_head
    q = tl.load(q_ptr + first * q_row + (q_at[:, None] + channel[None, :]), mask=mask, other=0.0)
    if INTERPRETED:  # the interpreter's products of 16-bit numbers are not to be trusted
        q = q.to(tl.float32)
    page_stride = kv_heads.to(tl.int64) * (2 * BLOCK)
    kv_head = kv_ptr + (head // SHARING).to(tl.int64) * (2 * BLOCK * DIM)
    scales_ptr += (head // SHARING).to(tl.int64) * (2 * BLOCK)

    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    values = tl.zeros([ROWS, DIM_PADDED], tl.float32)
    begin = 0
    if WINDOWED:  # steps count from position 0, so those that see nothing of the window are left out whole
        begin = tl.maximum(before + tl.maximum(part * ROWS // GROUP, low) - window + 1, 0) // TILE
    # A page id is loaded one step ahead: waiting for it in its own step would cost the pipeline a buffer.
    page = _page(ids_ptr, ids_slot, begin, in_tile, count, BLOCK, TILE)
    for step in tl.range(begin, tl.cdiv(end, TILE), num_stages=STAGES):
        key = step * TILE + in_tile
        start = page * page_stride
        page = _page(ids_ptr, ids_slot, step + 1, in_tile, count, BLOCK, TILE)
        if TILE <= BLOCK:  # a part of one page
            first_in_page = (step % (BLOCK // TILE)) * TILE
            at = kv_head + start * DIM + first_in_page * DIM
            at = at + (in_tile[:, None] * DIM + channel[None, :])
            scales_at = scales_ptr + start + first_in_page + in_tile
        else:  # several pages
            at = kv_head + ((start + key % BLOCK) * DIM)[:, None] + channel[None, :]
            scales_at = scales_ptr + start + key % BLOCK
        # What was never written may be NaN: it is not loaded.
        there = (key < end)[:, None]
        if DIM < DIM_PADDED:
            there = there & (channel[None, :] < DIM)
        k = tl.load(at, mask=there, other=0.0)
        v = tl.load(at + BLOCK * DIM, mask=there, other=0.0)
        k = k.to(q.dtype)  # of 8 bits: exactly
        v = v.to(q.dtype)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if QUANTISED:
            logits *= tl.load(scales_at, mask=key < end, other=0.0)[None, :]
        seen = key[None, :] <= before + offset[:, None]
        if WINDOWED:
            seen = seen & (key[None, :] > before + offset[:, None] - window)
        logits = tl.where(seen, logits, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 1))
        if WINDOWED:  # nothing seen yet: no -inf - -inf
            higher = tl.maximum(higher, LOWEST)
        p = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        if QUANTISED:
            p *= (tl.load(scales_at + BLOCK, mask=key < end, other=0.0) * LIFT)[None, :]
        values = tl.dot(p.to(v.dtype), v, acc=values * shrink[:, None], input_precision="ieee")
        peak = higher

    if QUANTISED:
        values *= 1.0 / LIFT
    if SINKS:
        total += sink_share(sinks_ptr, own, live, peak)
    share = values / tl.where(total > 0, total, 1.0)[:, None]
    out_ptr += first * (heads * (GROUP * DIM))
    out_at = (offset * (heads * GROUP) + own) * DIM
    tl.store(out_ptr + (out_at[:, None] + channel[None, :]), share.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _page(ids_ptr, ids_slot, step, in_tile, count, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """The page of a step's tokens, or the pages, one for each token."""
    slot = step // (BLOCK // TILE) if TILE <= BLOCK else (step * TILE + in_tile) // BLOCK
    return tl.load(ids_ptr + slot * ids_slot, mask=slot < count, other=0)
