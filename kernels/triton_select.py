"""Exact selection by block scores in Triton: ``select`` on a GPU.

One program per row and KV head. It counts the blocks that are read. Then scores become unsigned integers of
the same order; that of the last block that is read is found bit by bit (narrow tables, all in registers) or
byte by byte (wide ones, read again for every byte), whatever is above it is kept, and of its equals the
earliest.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.launch import power_of_two
from seer_ray.kernels.limits import RULES, Limits

NARROW = 2048
"""Blocks of a row that are held in registers."""
WARPS = 8
THRESHOLD, MASS = tl.constexpr(RULES.index("threshold")), tl.constexpr(RULES.index("mass"))
# Whether one of these is a multiple of 16 is not worth a kernel of its own.
VARYING = ["width", "k", "early", "scores_row", "scores_head", "table_row", "lengths_row"]


def select(
    scores: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int, limits: Limits
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``kernels.select``. Allocates its results from torch's caching allocator."""
    rows, heads, width = scores.shape
    k = limits.width(width)
    page_ids = torch.empty(rows, heads, k, dtype=torch.int64, device=scores.device)
    counts = torch.empty(rows, heads, dtype=torch.int64, device=scores.device)
    kernel = select_narrow if width <= NARROW else select_wide
    kernel[(heads, rows)](
        scores,
        page_table,
        lengths,
        limits.table,
        page_ids,
        counts,
        width,
        k,
        limits.table.shape[1] - 4,
        scores.stride(0),
        scores.stride(1),
        page_table.stride(0),
        lengths.stride(0),
        BLOCK=block,
        SINK=limits.sink,
        RULE=RULES.index(limits.rule),
        TILE=max(32, power_of_two(width)) if width <= NARROW else NARROW // 2,
        num_warps=WARPS,
    )
    return page_ids, counts


@triton.jit
def _keys(scores_ptr, index, complete, last, SINK: tl.constexpr):
    """Scores as ``uint32`` of the same order: 0 where there is no block, the largest where it is forced."""
    score = tl.load(scores_ptr + index, mask=index < complete, other=float("-inf"))
    score = tl.where(score == 0, 0.0, score)  # -0 is not below 0
    bits = score.to(tl.uint32, bitcast=True)
    key = tl.where((bits >> 31) != 0, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    key = tl.where(score != score, 0xFFFFFFFE, key)  # NaN first, as torch sorts
    forced = index == last
    if SINK:
        forced = forced | (index == 0)
    key = tl.where(forced, 0xFFFFFFFF, key)
    return tl.where(index <= last, key, 0).to(tl.uint32)


@triton.jit
def _peak(scores_ptr, index, complete):
    """The largest score, inf where one of them is NaN."""
    score = tl.load(scores_ptr + index, mask=index < complete, other=float("-inf"))
    return tl.max(tl.where(score != score, float("inf"), score), 0)


@triton.jit
def _terms(scores_ptr, index, complete, peak, sharpness):
    """Terms of the softmax in steps of 2^-40: sums of integers are the same in any order. See ``mass``."""
    score = tl.load(scores_ptr + index, mask=index < complete, other=float("-inf"))
    term = tl.exp((score - peak) * sharpness) * 1099511627776.0
    return tl.where(term < float("inf"), term, 0.0).to(tl.int64)  # NaN: the peak is infinite


@triton.jit
def _wanted(terms, total, threshold, key):
    """Whether a block's share is above the threshold, or it is forced."""
    return (terms.to(tl.float32) / total.to(tl.float32) > threshold) | (key == 0xFFFFFFFF)


@triton.jit
def _budget(limits_ptr, blocks, early, k):
    """Of a row with so many blocks."""
    most, fraction = tl.load(limits_ptr), tl.load(limits_ptr + 1)
    most = tl.maximum(most, fraction * blocks.to(tl.float32))
    most = tl.where(blocks <= early, tl.load(limits_ptr + 3 + tl.minimum(blocks, early)), most)
    return tl.minimum(tl.minimum(blocks, k), most.to(tl.int32))


@triton.jit
def _needed(number, missing, term):
    """Blocks down to the last one that a mass needs, of which a ``term`` is: those ``number`` that are above
    it leave so much missing."""
    return number + ((missing + term - 1) // tl.maximum(term, 1))


@triton.jit
def _write(ids_ptr, table_ptr, index, keep, before):
    """Pages of the kept blocks, behind the ``before`` that are written."""
    place = before + tl.cumsum(keep.to(tl.int32), 0) - 1
    page = tl.load(table_ptr + index, mask=keep, other=0)
    tl.store(ids_ptr + place, page, mask=keep)


@triton.jit(do_not_specialize=VARYING)
def select_narrow(
    scores_ptr,
    table_ptr,
    lengths_ptr,
    limits_ptr,
    ids_ptr,
    counts_ptr,
    width,
    k,
    early,
    scores_row,
    scores_head,
    table_row,
    lengths_row,
    BLOCK: tl.constexpr,
    SINK: tl.constexpr,
    RULE: tl.constexpr,
    TILE: tl.constexpr,
):
    head = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    out = row * tl.num_programs(0) + head
    scores_ptr += row * scores_row + head * scores_head
    table_ptr += row * table_row
    ids_ptr += out * k
    limits_ptr += head * (4 + early)
    length = tl.load(lengths_ptr + row * lengths_row).to(tl.int32)
    complete = tl.minimum(length // BLOCK, width)
    last = tl.minimum((length - 1) // BLOCK, width - 1)
    index = tl.arange(0, TILE)

    key = _keys(scores_ptr, index, complete, last, SINK)
    count = _budget(limits_ptr, last + 1, early, k)
    if RULE != 0:
        level, sharpness = tl.load(limits_ptr + 2), tl.load(limits_ptr + 3)
        peak = _peak(scores_ptr, index, complete)
        terms = _terms(scores_ptr, index, complete, peak, sharpness)
        total = tl.sum(terms, 0)
        if RULE == THRESHOLD:
            count = tl.minimum(tl.sum(_wanted(terms, total, level, key).to(tl.int32), 0), count)
        else:
            target = (total.to(tl.float32) * level).to(tl.int64)
            # The largest key such that the terms of all that reach it are enough.
            edge = tl.zeros([1], tl.uint32)
            for step in range(32):
                higher = edge | (tl.full([1], 1, tl.uint32) << (31 - step))
                enough = tl.sum(tl.where(key >= higher, terms, 0), 0) >= target
                edge = tl.where(enough, higher, edge)
            missing = target - tl.sum(tl.where(key > edge, terms, 0), 0)
            term = tl.max(tl.where(key == edge, terms, 0), 0)
            number = _needed(tl.sum((key > edge).to(tl.int64), 0), missing, term)
            forced = tl.sum((key == 0xFFFFFFFF).to(tl.int32), 0)
            count = tl.minimum(tl.maximum(number, forced), count).to(tl.int32)

    # The largest key that at least `count` blocks reach.
    edge = tl.zeros([1], tl.uint32)
    for step in range(32):
        higher = edge | (tl.full([1], 1, tl.uint32) << (31 - step))
        enough = tl.sum((key >= higher).to(tl.int32), 0) >= count
        edge = tl.where(enough, higher, edge)
    above = key > edge
    equal = (key == edge) & (index <= last)
    room = count - tl.sum(above.to(tl.int32), 0)
    keep = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= room))
    _write(ids_ptr, table_ptr, index, keep, 0)
    tl.store(ids_ptr + index, tl.zeros([TILE], tl.int64), mask=(index >= count) & (index < k))
    tl.store(counts_ptr + out, count.to(tl.int64))


@triton.jit(do_not_specialize=VARYING)
def select_wide(
    scores_ptr,
    table_ptr,
    lengths_ptr,
    limits_ptr,
    ids_ptr,
    counts_ptr,
    width,
    k,
    early,
    scores_row,
    scores_head,
    table_row,
    lengths_row,
    BLOCK: tl.constexpr,
    SINK: tl.constexpr,
    RULE: tl.constexpr,
    TILE: tl.constexpr,
):
    head = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    out = row * tl.num_programs(0) + head
    scores_ptr += row * scores_row + head * scores_head
    table_ptr += row * table_row
    ids_ptr += out * k
    limits_ptr += head * (4 + early)
    length = tl.load(lengths_ptr + row * lengths_row).to(tl.int32)
    complete = tl.minimum(length // BLOCK, width)
    last = tl.minimum((length - 1) // BLOCK, width - 1)
    blocks = last + 1
    index = tl.arange(0, TILE)

    count = _budget(limits_ptr, blocks, early, k)
    if RULE != 0:
        level, sharpness = tl.load(limits_ptr + 2), tl.load(limits_ptr + 3)
        peak = tl.full([1], float("-inf"), tl.float32)
        for start in range(0, complete, TILE):
            peak = tl.maximum(peak, _peak(scores_ptr, start + index, complete))
        total = tl.zeros([1], tl.int64)
        for start in range(0, complete, TILE):
            total += tl.sum(_terms(scores_ptr, start + index, complete, peak, sharpness), 0)
        number = tl.zeros([1], tl.int64)
        if RULE == THRESHOLD:
            for start in range(0, blocks, TILE):
                at = start + index
                key = _keys(scores_ptr, at, complete, last, SINK)
                terms = _terms(scores_ptr, at, complete, peak, sharpness)
                number += tl.sum(_wanted(terms, total, level, key).to(tl.int64), 0)
        else:
            target = (total.to(tl.float32) * level).to(tl.int64)
            edge = tl.zeros([1], tl.uint32)
            for step in range(32):
                higher = edge | (tl.full([1], 1, tl.uint32) << (31 - step))
                reached = tl.zeros([1], tl.int64)
                for start in range(0, blocks, TILE):
                    at = start + index
                    key = _keys(scores_ptr, at, complete, last, SINK)
                    terms = _terms(scores_ptr, at, complete, peak, sharpness)
                    reached += tl.sum(tl.where(key >= higher, terms, 0), 0)
                edge = tl.where(reached >= target, higher, edge)
            missing, term = target, tl.zeros([1], tl.int64)
            forced = tl.zeros([1], tl.int64)
            for start in range(0, blocks, TILE):
                at = start + index
                key = _keys(scores_ptr, at, complete, last, SINK)
                terms = _terms(scores_ptr, at, complete, peak, sharpness)
                missing -= tl.sum(tl.where(key > edge, terms, 0), 0)
                term = tl.maximum(term, tl.max(tl.where(key == edge, terms, 0), 0))
                number += tl.sum((key > edge).to(tl.int64), 0)
                forced += tl.sum((key == 0xFFFFFFFF).to(tl.int64), 0)
            number = tl.maximum(_needed(number, missing, term), forced)
        count = tl.minimum(tl.max(number, 0), count).to(tl.int32)

    # The count-th largest key, from its highest byte down; `left` is its rank among equals so far.
    edge = tl.zeros([1], tl.uint32)
    left = tl.zeros([1], tl.int32) + count
    digit = tl.arange(0, 256)
    for byte in tl.static_range(4):
        number = tl.zeros([256], tl.int32)
        for start in range(0, blocks, TILE):
            at = start + index
            key = _keys(scores_ptr, at, complete, last, SINK)
            # In two steps: a shift by 32 is not defined.
            same = ((key >> (24 - 8 * byte)) >> 8) == ((edge >> (24 - 8 * byte)) >> 8)
            bits = ((key >> (24 - 8 * byte)) & 255).to(tl.int32)
            number += tl.histogram(bits, 256, mask=same & (at <= last))
        reach = tl.sum(number, 0) - tl.cumsum(number, 0) + number  # of this digit or a higher one
        chosen = tl.max(tl.where(reach >= left, digit, 0), 0)
        left -= tl.sum(tl.where(digit > chosen, number, 0), 0)
        edge = edge | (chosen.to(tl.uint32) << (24 - 8 * byte))

    before = tl.zeros([1], tl.int32)
    for start in range(0, blocks, TILE):
        at = start + index
        key = _keys(scores_ptr, at, complete, last, SINK)
        equal = (key == edge) & (at <= last)
        keep = (key > edge) | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= left))
        left -= tl.minimum(left, tl.sum(equal.to(tl.int32), 0))
        _write(ids_ptr, table_ptr, at, keep, before)
        before += tl.sum(keep.to(tl.int32), 0)
    for start in range(0, k, TILE):
        at = start + index
        tl.store(ids_ptr + at, tl.zeros([TILE], tl.int64), mask=(at >= count) & (at < k))
    tl.store(counts_ptr + out, count.to(tl.int64))
