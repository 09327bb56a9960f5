"""Summaries of pages that their current token fills, in Triton: what a decode step does for its selectors.

Every step launches a program for each row and KV head; all but those of a full page end at once. So whether a
page is full is decided on the device, and a row's summary does not depend on its batch mates. The definitions
are the selectors' own: ``AttnGate.compress_pages`` on keys that are turned back, and ``Quest.summarise``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.launch import power_of_two

WARPS = 4


def extremes(kv: torch.Tensor, summary: torch.Tensor, pages: torch.Tensor, positions: torch.Tensor) -> None:
    """Largest and smallest K of the full pages, in place.

    Args:
        kv: cache of the layer, ``[pages, kv_heads, 2, block, head_dim]``.
        summary: ``[pages, kv_heads, 2 * head_dim]``.
        pages: of the current tokens, ``[rows]``.
        positions: of the current tokens, ``[rows]``.
    """
    heads, block, dim = kv.shape[1], kv.shape[3], kv.shape[4]
    extremes_page[(heads, len(pages))](
        kv,
        summary,
        pages.contiguous(),
        positions.contiguous(),
        DIM=dim,
        DIM_PADDED=power_of_two(dim),
        BLOCK=block,
        BLOCK_PADDED=power_of_two(block),
        num_warps=WARPS,
    )


def compress(
    kv: torch.Tensor,
    summary: torch.Tensor,
    pages: torch.Tensor,
    positions: torch.Tensor,
    rotary: tuple[torch.Tensor, torch.Tensor],
    weight: torch.Tensor,
    pools: tuple[bool, bool, bool],
    norm: torch.Tensor | None,
    eps: float,
    gate_rotary: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    """The gate's compressed keys of the full pages, in place.

    Args:
        kv, pages, positions: see ``extremes``.
        summary: ``[pages, kv_heads, gate_dim]``.
        rotary: the model's tables by position, fp32 ``[positions, head_dim]``.
        weight: of the gate's k branch, fp32 ``[kv_heads, pools * head_dim, gate_dim]``.
        pools: whether max, min and average are among the inputs.
        norm: weight of the RMSNorm behind the projection, ``[gate_dim]``, or None.
        eps: of that norm.
        gate_rotary: the gate's table rows of the pages' first positions, fp32 ``[rows, gate_dim]``, or None.
    """
    heads, block, dim = kv.shape[1], kv.shape[3], kv.shape[4]
    gate_dim = weight.shape[2]
    cos, sin = gate_rotary if gate_rotary is not None else rotary
    compress_page[(heads, len(pages))](
        kv,
        summary,
        pages.contiguous(),
        positions.contiguous(),
        *rotary,
        weight,
        weight if norm is None else norm,
        cos,
        sin,
        eps,
        MAX=pools[0],
        MIN=pools[1],
        AVG=pools[2],
        NORM=norm is not None,
        ROTARY=gate_rotary is not None,
        HALF=dim // 2,
        HALF_PADDED=power_of_two(dim // 2),
        GATE_HALF=gate_dim // 2,
        GATE_HALF_PADDED=power_of_two(gate_dim // 2),
        BLOCK=block,
        BLOCK_PADDED=power_of_two(block),
        num_warps=WARPS,
    )


@triton.jit
def extremes_page(
    kv_ptr,
    summary_ptr,
    pages_ptr,
    positions_ptr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PADDED: tl.constexpr,
):
    head = tl.program_id(0)
    row = tl.program_id(1)
    heads = tl.num_programs(0)
    position = tl.load(positions_ptr + row)
    if (position + 1) % BLOCK != 0:
        return
    page = tl.load(pages_ptr + row).to(tl.int64)
    token = tl.arange(0, BLOCK_PADDED)[:, None]
    channel = tl.arange(0, DIM_PADDED)
    at = kv_ptr + (page * heads + head) * (2 * BLOCK * DIM) + token * DIM + channel[None, :]
    mask = (token < BLOCK) & (channel[None, :] < DIM)
    k = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    out = summary_ptr + (page * heads + head) * (2 * DIM) + channel
    highest = tl.max(tl.where(token < BLOCK, k, float("-inf")), 0)
    lowest = tl.min(tl.where(token < BLOCK, k, float("inf")), 0)
    tl.store(out, highest.to(summary_ptr.dtype.element_ty), mask=channel < DIM)
    tl.store(out + DIM, lowest.to(summary_ptr.dtype.element_ty), mask=channel < DIM)


@triton.jit
def _half_products(low, high, weight_ptr, HALF, GATE_HALF, inner, outer):
    """One pool's part of one half of the outputs: ``low @ W[:HALF] + high @ W[HALF:2 HALF]``."""
    at = weight_ptr + inner[:, None] * (2 * GATE_HALF) + outer[None, :]
    mask = (inner[:, None] < HALF) & (outer[None, :] < GATE_HALF)
    upper = tl.load(at, mask=mask, other=0.0)
    lower = tl.load(at + HALF * (2 * GATE_HALF), mask=mask, other=0.0)
    return tl.sum(low[:, None] * upper, 0) + tl.sum(high[:, None] * lower, 0)


@triton.jit
def compress_page(
    kv_ptr,
    summary_ptr,
    pages_ptr,
    positions_ptr,
    cos_ptr,
    sin_ptr,
    weight_ptr,
    norm_ptr,
    gate_cos_ptr,
    gate_sin_ptr,
    eps,
    MAX: tl.constexpr,
    MIN: tl.constexpr,
    AVG: tl.constexpr,
    NORM: tl.constexpr,
    ROTARY: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    GATE_HALF: tl.constexpr,
    GATE_HALF_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PADDED: tl.constexpr,
):
    head = tl.program_id(0)
    row = tl.program_id(1)
    heads = tl.num_programs(0)
    position = tl.load(positions_ptr + row)
    if (position + 1) % BLOCK != 0:
        return
    page = tl.load(pages_ptr + row).to(tl.int64)

    # Keys as they were before rotation.
    token = tl.arange(0, BLOCK_PADDED)[:, None]
    inner = tl.arange(0, HALF_PADDED)
    mask = (token < BLOCK) & (inner[None, :] < HALF)
    at = kv_ptr + (page * heads + head) * (4 * BLOCK * HALF) + token * (2 * HALF) + inner[None, :]
    turned_low = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    turned_high = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    start = (position + 1 - BLOCK + token) * (2 * HALF)
    at = start + inner[None, :]
    cos_low = tl.load(cos_ptr + at, mask=mask, other=1.0)
    sin_low = tl.load(sin_ptr + at, mask=mask, other=0.0)
    low = turned_low * cos_low + turned_high * sin_low
    cos_high = tl.load(cos_ptr + at + HALF, mask=mask, other=1.0)
    sin_high = tl.load(sin_ptr + at + HALF, mask=mask, other=0.0)
    high = turned_high * cos_high - turned_low * sin_high
    # cos² + sin² is the square of the tables' attention scaling, the same in every channel.
    cos_first = tl.load(cos_ptr + start, mask=token < BLOCK, other=1.0)
    sin_first = tl.load(sin_ptr + start, mask=token < BLOCK, other=0.0)
    scale = cos_first * cos_first + sin_first * sin_first
    low = low / scale
    high = high / scale

    outer = tl.arange(0, GATE_HALF_PADDED)
    first = weight_ptr + head * ((MAX + MIN + AVG) * 4 * HALF * GATE_HALF)
    y_low = tl.zeros([GATE_HALF_PADDED], tl.float32)
    y_high = tl.zeros([GATE_HALF_PADDED], tl.float32)
    if MAX:
        pooled_low = tl.max(tl.where(token < BLOCK, low, float("-inf")), 0)
        pooled_high = tl.max(tl.where(token < BLOCK, high, float("-inf")), 0)
        y_low += _half_products(pooled_low, pooled_high, first, HALF, GATE_HALF, inner, outer)
        y_high += _half_products(pooled_low, pooled_high, first + GATE_HALF, HALF, GATE_HALF, inner, outer)
        first += 4 * HALF * GATE_HALF
    if MIN:
        pooled_low = tl.min(tl.where(token < BLOCK, low, float("inf")), 0)
        pooled_high = tl.min(tl.where(token < BLOCK, high, float("inf")), 0)
        y_low += _half_products(pooled_low, pooled_high, first, HALF, GATE_HALF, inner, outer)
        y_high += _half_products(pooled_low, pooled_high, first + GATE_HALF, HALF, GATE_HALF, inner, outer)
        first += 4 * HALF * GATE_HALF
    if AVG:
        pooled_low = tl.sum(tl.where(token < BLOCK, low, 0.0), 0) / BLOCK
        pooled_high = tl.sum(tl.where(token < BLOCK, high, 0.0), 0) / BLOCK
        y_low += _half_products(pooled_low, pooled_high, first, HALF, GATE_HALF, inner, outer)
        y_high += _half_products(pooled_low, pooled_high, first + GATE_HALF, HALF, GATE_HALF, inner, outer)

    inside = outer < GATE_HALF
    if NORM:
        squares = tl.sum(y_low * y_low, 0) + tl.sum(y_high * y_high, 0)
        inverse = 1.0 / tl.sqrt(squares / (2 * GATE_HALF) + eps)
        y_low *= inverse * tl.load(norm_ptr + outer, mask=inside, other=0.0).to(tl.float32)
        y_high *= inverse * tl.load(norm_ptr + GATE_HALF + outer, mask=inside, other=0.0).to(tl.float32)
    if ROTARY:
        at = row * (2 * GATE_HALF) + outer
        low_cos = tl.load(gate_cos_ptr + at, mask=inside, other=0.0)
        low_sin = tl.load(gate_sin_ptr + at, mask=inside, other=0.0)
        high_cos = tl.load(gate_cos_ptr + at + GATE_HALF, mask=inside, other=0.0)
        high_sin = tl.load(gate_sin_ptr + at + GATE_HALF, mask=inside, other=0.0)
        straight = y_low
        y_low = y_low * low_cos - y_high * low_sin
        y_high = y_high * high_cos + straight * high_sin
    out = summary_ptr + (page * heads + head) * (2 * GATE_HALF) + outer
    tl.store(out, y_low.to(summary_ptr.dtype.element_ty), mask=inside)
    tl.store(out + GATE_HALF, y_high.to(summary_ptr.dtype.element_ty), mask=inside)
