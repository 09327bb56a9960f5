"""The distillation target in Triton: ``target.attend_with_target`` on a GPU.

A FlashAttention-2 forward whose programs also write, for each row and key block, the largest logit (or the
log of the block's sum) as it streams by; a second launch rescales by each head's final sum, reduces the
heads of a group and normalises the rows. Rows go in chunks, so that what lies between the two launches is
``O(CHUNK * q_heads * blocks)``. All logits are to the base 2, in fp32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.launch import INTERPRETED, power_of_two

CHUNK = 2048
"""Rows between two launches."""
FOLD_ROWS, FOLD_BLOCKS = 32, 32
"""Rows and blocks that are reduced at once."""


def attend_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int, scale: float, first: int, kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``kernels.target.reference``."""
    tokens, q_heads, dim = q.shape
    heads, blocks = k.shape[1], (tokens - 1) // block
    q, k, v = q.contiguous(), k.to(q.dtype).contiguous(), v.to(q.dtype).contiguous()
    out = torch.empty(tokens - first, q_heads, dim, dtype=q.dtype, device=q.device)
    target = torch.zeros(tokens - first, heads, blocks, dtype=torch.float32, device=q.device)
    shape = tiling(dim, block, q.element_size())
    rows = min(CHUNK, tokens - first)
    shares = torch.empty(q_heads * max(1, blocks) * rows, dtype=torch.float32, device=q.device)
    sums = torch.empty(q_heads * rows, dtype=torch.float32, device=q.device)
    for start in range(first, tokens, CHUNK):
        count = min(CHUNK, tokens - start)
        attend_tiles[(triton.cdiv(count, shape["ROWS"]), q_heads)](
            q,
            k,
            v,
            out,
            shares,
            sums,
            scale * 1.4426950408889634,
            start,
            count,
            first,
            tokens,
            blocks,
            heads,
            GROUP=q_heads // heads,
            DIM=dim,
            BLOCK=block,
            MASS=kind == "mass",
            INTERPRETED=INTERPRETED,
            **shape,
        )
        if blocks:
            fold_heads[(triton.cdiv(count, FOLD_ROWS), heads)](
                shares,
                sums,
                target,
                start,
                count,
                first,
                blocks,
                GROUP=q_heads // heads,
                BLOCK=block,
                MASS=kind == "mass",
                ROWS=FOLD_ROWS,
                BLOCKS=FOLD_BLOCKS,
                num_warps=4,
            )
    return out.to(v.dtype), target


def tiling(dim: int, block: int, itemsize: int) -> dict[str, int]:
    """Constants of the kernel for these shapes."""
    padded = max(16, power_of_two(dim))
    if itemsize == 2:
        rows, tile = (128, 64) if padded <= 128 else (64, 32)
    else:  # no tensor cores: what fits into the registers
        rows, tile = 16, max(16, 2048 // padded)
    tile = min(block, tile)
    return {
        "DIM_PADDED": padded,
        "ROWS": rows,
        "TILE": tile,
        "PARTS": block // tile,
        "num_warps": 8 if rows == 128 else 4,
        "num_stages": 2,
    }


@triton.jit(do_not_specialize=["start", "count", "first", "tokens", "blocks"])
def attend_tiles(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    shares_ptr,  # [q_heads, blocks, count]
    sums_ptr,  # [q_heads, count]
    scale,  # of logits to the base 2
    start,
    count,
    first,
    tokens,
    blocks,
    heads,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    MASS: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    # The last rows have the most to do: they begin first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    q_head = tl.program_id(1)
    head = q_head // GROUP
    q_heads = heads * GROUP
    row = tile * ROWS + tl.arange(0, ROWS)
    live = row < count
    position = start + row
    channel = tl.arange(0, DIM_PADDED)
    in_tile = tl.arange(0, TILE)
    mask = live[:, None] & (channel[None, :] < DIM)
    q_at = (position.to(tl.int64) * q_heads + q_head) * DIM
    q = tl.load(q_ptr + q_at[:, None] + channel[None, :], mask=mask, other=0.0)
    if INTERPRETED:  # the interpreter's products of 16-bit numbers are not to be trusted
        q = q.to(tl.float32)
    shares_ptr += q_head.to(tl.int64) * blocks * count

    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    values = tl.zeros([ROWS, DIM_PADDED], tl.float32)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    inside = tl.zeros([ROWS], tl.float32)
    last = (start + tl.minimum((tile + 1) * ROWS, count) - 1) // BLOCK
    for step in tl.range(0, (last + 1) * PARTS):
        token = step * TILE + in_tile
        at = (token.to(tl.int64) * heads + head) * DIM
        there = (token < tokens)[:, None] & (channel[None, :] < DIM)
        k = tl.load(k_ptr + at[:, None] + channel[None, :], mask=there, other=0.0)
        v = tl.load(v_ptr + at[:, None] + channel[None, :], mask=there, other=0.0)
        if INTERPRETED:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        logits = tl.where(token[None, :] <= position[:, None], logits, float("-inf"))
        top = tl.max(logits, 1)
        higher = tl.maximum(peak, top)
        p = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(peak - higher)
        sums = tl.sum(p, 1)
        total = total * shrink + sums
        values = tl.dot(p.to(v.dtype), v, acc=values * shrink[:, None], input_precision="ieee")
        peak = higher
        begins = step % PARTS == 0  # a block
        if MASS:
            inside = tl.where(begins, 0.0, inside * shrink) + sums
            share = tl.log2(inside) + peak
        else:
            largest = tl.maximum(tl.where(begins, float("-inf"), largest), top)
            share = largest
        # Only rows beyond this block will look at it.
        index = step // PARTS
        ends = step % PARTS == PARTS - 1
        tl.store(shares_ptr + index * count + row, share, mask=live & ends & (index < position // BLOCK))
    tl.store(sums_ptr + q_head * count + row, tl.log2(total) + peak, mask=live)
    out_at = ((position - first).to(tl.int64) * q_heads + q_head) * DIM
    out = (values / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + out_at[:, None] + channel[None, :], out, mask=mask)


@triton.jit(do_not_specialize=["start", "count", "first", "blocks"])
def fold_heads(
    shares_ptr,
    sums_ptr,
    target_ptr,  # [rows, kv_heads, blocks]
    start,
    count,
    first,
    blocks,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    MASS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    head = tl.program_id(1)
    heads = tl.num_programs(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < count
    own = tl.where(live, (start + row) // BLOCK, 0)
    used = tl.max(own, 0)
    total = tl.zeros([ROWS], tl.float32)
    for at in tl.range(0, used, BLOCKS):
        share = _fold(
            shares_ptr, sums_ptr, head, row, live, own, at, count, blocks, GROUP, MASS, ROWS, BLOCKS
        )
        total += tl.sum(share, 0)
    for at in tl.range(0, used, BLOCKS):
        share = _fold(
            shares_ptr, sums_ptr, head, row, live, own, at, count, blocks, GROUP, MASS, ROWS, BLOCKS
        )
        share = share / tl.where(total > 0, total, 1.0)[None, :]
        index = at + tl.arange(0, BLOCKS)
        to = ((start - first + row).to(tl.int64) * heads + head) * blocks
        mask = live[None, :] & (index[:, None] < own[None, :])
        tl.store(target_ptr + to[None, :] + index[:, None], share, mask=mask)


@triton.jit
def _fold(
    shares_ptr,
    sums_ptr,
    head,
    row,
    live,
    own,
    at,
    count,
    blocks,
    GROUP: tl.constexpr,
    MASS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Shares of some blocks, reduced over the group, ``[blocks, rows]``; 0 where there is none."""
    index = at + tl.arange(0, BLOCKS)
    mask = live[None, :] & (index[:, None] < own[None, :])
    folded = tl.zeros([BLOCKS, ROWS], tl.float32)
    for member in tl.static_range(GROUP):
        q_head = (head * GROUP + member).to(tl.int64)
        at_ptr = shares_ptr + (q_head * blocks + index[:, None]) * count + row[None, :]
        share = tl.load(at_ptr, mask=mask, other=float("-inf"))
        sums = tl.load(sums_ptr + q_head * count + row, mask=live, other=0.0)
        p = tl.exp2(share - sums[None, :])
        folded = folded + p if MASS else tl.maximum(folded, p)
    return folded
