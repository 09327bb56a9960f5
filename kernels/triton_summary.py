"""Summaries of pages that their current token fills, in Triton: what a decode step does for its selectors,
with the gate's query of the same rows.

Every step launches a program for each row and KV head; all but those of a full page end at once. So whether a
page is full is decided on the device, and a row's summary does not depend on its batch mates. The definitions
are the selectors' own: ``AttnGate.compress_pages`` on keys that are turned back, and ``Quest.summarise``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from seer_ray.kernels.launch import power_of_two
from seer_ray.kernels.quantise import KV, tensors

WARPS = 4
TILE_NUMBERS = 2048
"""Of half a tile of keys: what the registers hold beside the running pools."""


def extremes(kv: KV, summary: torch.Tensor, pages: torch.Tensor, positions: torch.Tensor) -> None:
    """Largest and smallest K of the full pages, in place.

    Args:
        kv: cache of the layer, ``[pages, kv_heads, 2, block, head_dim]``.
        summary: ``[pages, kv_heads, 2 * head_dim]``.
        pages: of the current tokens, ``[rows]``.
        positions: of the current tokens, ``[rows]``.
    """
    heads, block, dim = kv.shape[1], kv.shape[3], kv.shape[4]
    numbers, scales = tensors(kv)
    extremes_page[(heads, len(pages))](
        numbers,
        numbers if scales is None else scales,
        summary,
        pages.contiguous(),
        positions.contiguous(),
        DIM=dim,
        DIM_PADDED=power_of_two(dim),
        BLOCK=block,
        BLOCK_PADDED=power_of_two(block),
        QUANTISED=scales is not None,
        num_warps=WARPS,
    )


class Asking(NamedTuple):
    """Of the gate's query."""

    q_nope: torch.Tensor
    """Before rotation, ``[rows, q_heads, head_dim]``."""
    weight: torch.Tensor
    """fp32 ``[kv_heads, group, head_dim, gate_dim]``."""
    norm: torch.Tensor | None
    """Weight of the RMSNorm behind the projection, ``[gate_dim]``."""
    rotary: tuple[torch.Tensor, torch.Tensor] | None
    """The gate's table rows of the current positions, fp32 ``[rows, gate_dim]``."""


def compress(
    kv: KV,
    summary: torch.Tensor,
    pages: torch.Tensor,
    positions: torch.Tensor,
    rotary: tuple[torch.Tensor, torch.Tensor],
    weight: torch.Tensor,
    pools: tuple[bool, bool, bool],
    norm: torch.Tensor | None,
    eps: float,
    gate_rotary: tuple[torch.Tensor, torch.Tensor] | None,
    asking: Asking | None = None,
) -> torch.Tensor | None:
    """The gate's compressed keys of the full pages, in place, and the gate's query in the same launch.

    Args:
        kv, pages, positions: see ``extremes``.
        summary: ``[pages, kv_heads, gate_dim]``.
        rotary: the model's tables by position, fp32 ``[positions, head_dim]``.
        weight: of the gate's k branch, fp32 ``[kv_heads, pools * head_dim, gate_dim]``.
        pools: whether max, min and average are among the inputs.
        norm: weight of the RMSNorm behind the projection, ``[gate_dim]``, or None.
        eps: of that norm, and of the query's.
        gate_rotary: the gate's table rows of the pages' first positions, fp32 ``[rows, gate_dim]``, or None.
        asking: None: no query.

    Returns:
        The query, ``[rows, kv_heads, gate_dim]`` in fp32; see ``AttnGate.gate_query``.
    """
    heads, block, dim = kv.shape[1], kv.shape[3], kv.shape[4]
    numbers, scales = tensors(kv)
    gate_dim = weight.shape[2]
    cos, sin = gate_rotary if gate_rotary is not None else rotary
    q = query = q_weight = q_norm = q_cos = q_sin = weight
    if asking is not None:
        query = torch.empty(len(pages), heads, gate_dim, dtype=torch.float32, device=kv.device)
        q = asking.q_nope if asking.q_nope.stride(2) == 1 else asking.q_nope.contiguous()
        q_weight, q_norm = asking.weight, weight if asking.norm is None else asking.norm
        q_cos, q_sin = asking.rotary if asking.rotary is not None else rotary
    compress_page[(heads, len(pages))](
        numbers,
        numbers if scales is None else scales,
        summary,
        pages.contiguous(),
        positions.contiguous(),
        *rotary,
        weight,
        weight if norm is None else norm,
        cos,
        sin,
        q,
        q_weight,
        q_norm,
        q_cos,
        q_sin,
        query,
        eps,
        gate_dim**-0.5,
        q.stride(0),
        q.stride(1),
        GROUP=0 if asking is None else q.shape[1] // heads,
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
        QUANTISED=scales is not None,
        TILE=max(1, min(power_of_two(block), TILE_NUMBERS // power_of_two(dim // 2))),
        num_warps=WARPS if dim * gate_dim <= 128 * 128 else 2 * WARPS,
    )
    return None if asking is None else query


@triton.jit
def extremes_page(
    kv_ptr,
    scales_ptr,
    summary_ptr,
    pages_ptr,
    positions_ptr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PADDED: tl.constexpr,
    QUANTISED: tl.constexpr,
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
    first = (page * heads + head) * (2 * BLOCK)
    at = kv_ptr + first * DIM + token * DIM + channel[None, :]
    mask = (token < BLOCK) & (channel[None, :] < DIM)
    k = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    if QUANTISED:
        k *= tl.load(scales_ptr + first + token, mask=token < BLOCK, other=0.0)
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
def _ask(q_ptr, q_head, weight_ptr, GROUP: tl.constexpr, HALF: tl.constexpr, GATE_HALF, inner, outer):
    """The projection of a group's queries, summed."""
    low_sum = tl.zeros([outer.shape[0]], tl.float32)
    high_sum = tl.zeros([outer.shape[0]], tl.float32)
    for member in range(GROUP):
        low = tl.load(q_ptr + member * q_head + inner, mask=inner < HALF, other=0.0).to(tl.float32)
        high = tl.load(q_ptr + member * q_head + HALF + inner, mask=inner < HALF, other=0.0).to(tl.float32)
        part = weight_ptr + member * (4 * HALF * GATE_HALF)
        low_sum += _half_products(low, high, part, HALF, GATE_HALF, inner, outer)
        high_sum += _half_products(low, high, part + GATE_HALF, HALF, GATE_HALF, inner, outer)
    return low_sum, high_sum


@triton.jit
def _normal(low, high, norm_ptr, eps, HALF, channel):
    """RMSNorm of a vector in two halves, zeros beyond them."""
    squares = tl.sum(low * low, 0) + tl.sum(high * high, 0)
    inverse = 1.0 / tl.sqrt(squares / (2 * HALF) + eps)
    inside = channel < HALF
    low *= inverse * tl.load(norm_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    high *= inverse * tl.load(norm_ptr + HALF + channel, mask=inside, other=0.0).to(tl.float32)
    return low, high


@triton.jit
def _turn(low, high, cos_ptr, sin_ptr, HALF, inside):
    """Rotation of a vector in two halves."""
    low_cos = tl.load(cos_ptr, mask=inside, other=0.0)
    low_sin = tl.load(sin_ptr, mask=inside, other=0.0)
    high_cos = tl.load(cos_ptr + HALF, mask=inside, other=0.0)
    high_sin = tl.load(sin_ptr + HALF, mask=inside, other=0.0)
    return low * low_cos - high * low_sin, high * high_cos + low * high_sin


@triton.jit
def compress_page(
    kv_ptr,
    scales_ptr,
    summary_ptr,
    pages_ptr,
    positions_ptr,
    cos_ptr,
    sin_ptr,
    weight_ptr,
    norm_ptr,
    gate_cos_ptr,
    gate_sin_ptr,
    q_ptr,
    q_weight_ptr,
    q_norm_ptr,
    q_cos_ptr,
    q_sin_ptr,
    query_ptr,
    eps,
    query_scale,
    q_row,
    q_head,
    GROUP: tl.constexpr,
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
    QUANTISED: tl.constexpr,
    TILE: tl.constexpr,
):
    head = tl.program_id(0)
    row = tl.program_id(1)
    heads = tl.num_programs(0)
    inner = tl.arange(0, HALF_PADDED)
    outer = tl.arange(0, GATE_HALF_PADDED)
    inside = outer < GATE_HALF
    if GROUP > 0:
        q_ptr += row.to(tl.int64) * q_row + head * GROUP * q_head
        q_weight_ptr += head * GROUP * (4 * HALF * GATE_HALF)
        ask_low, ask_high = _ask(q_ptr, q_head, q_weight_ptr, GROUP, HALF, GATE_HALF, inner, outer)
        if NORM:
            ask_low, ask_high = _normal(ask_low, ask_high, q_norm_ptr, eps, GATE_HALF, outer)
        if ROTARY:
            turns = row * (2 * GATE_HALF) + outer
            ask_low, ask_high = _turn(
                ask_low, ask_high, q_cos_ptr + turns, q_sin_ptr + turns, GATE_HALF, inside
            )
        query_ptr += (row * heads + head).to(tl.int64) * (2 * GATE_HALF)
        tl.store(query_ptr + outer, ask_low * query_scale, mask=inside)
        tl.store(query_ptr + GATE_HALF + outer, ask_high * query_scale, mask=inside)

    position = tl.load(positions_ptr + row)
    if (position + 1) % BLOCK != 0:
        return
    page = tl.load(pages_ptr + row).to(tl.int64)

    first_slot = (page * heads + head) * (2 * BLOCK)
    keys = kv_ptr + first_slot * (2 * HALF)
    max_low = tl.full([HALF_PADDED], float("-inf"), tl.float32)
    max_high = tl.full([HALF_PADDED], float("-inf"), tl.float32)
    min_low = tl.full([HALF_PADDED], float("inf"), tl.float32)
    min_high = tl.full([HALF_PADDED], float("inf"), tl.float32)
    sum_low = tl.zeros([HALF_PADDED], tl.float32)
    sum_high = tl.zeros([HALF_PADDED], tl.float32)
    for begin in range(0, BLOCK, TILE):
        token = begin + tl.arange(0, TILE)[:, None]
        live = token < BLOCK
        mask = live & (inner[None, :] < HALF)
        at = keys + token * (2 * HALF) + inner[None, :]
        turned_low = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        turned_high = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
        if QUANTISED:
            by = tl.load(scales_ptr + first_slot + token, mask=live, other=0.0)
            turned_low *= by
            turned_high *= by
        # As they were before rotation.
        at = (position + 1 - BLOCK + token) * (2 * HALF) + inner[None, :]
        cosine = tl.load(cos_ptr + at, mask=mask, other=1.0)
        sine = tl.load(sin_ptr + at, mask=mask, other=0.0)
        low = turned_low * cosine + turned_high * sine
        cosine = tl.load(cos_ptr + at + HALF, mask=mask, other=1.0)
        sine = tl.load(sin_ptr + at + HALF, mask=mask, other=0.0)
        high = turned_high * cosine - turned_low * sine
        # cos² + sin² is the square of the tables' attention scaling, which channels that are not turned lack.
        low = low / (cosine * cosine + sine * sine)
        high = high / (cosine * cosine + sine * sine)
        if MAX:
            max_low = tl.maximum(max_low, tl.max(tl.where(live, low, float("-inf")), 0))
            max_high = tl.maximum(max_high, tl.max(tl.where(live, high, float("-inf")), 0))
        if MIN:
            min_low = tl.minimum(min_low, tl.min(tl.where(live, low, float("inf")), 0))
            min_high = tl.minimum(min_high, tl.min(tl.where(live, high, float("inf")), 0))
        if AVG:
            sum_low += tl.sum(tl.where(live, low, 0.0), 0)
            sum_high += tl.sum(tl.where(live, high, 0.0), 0)

    first = weight_ptr + head * ((MAX + MIN + AVG) * 4 * HALF * GATE_HALF)
    y_low = tl.zeros([GATE_HALF_PADDED], tl.float32)
    y_high = tl.zeros([GATE_HALF_PADDED], tl.float32)
    if MAX:
        y_low += _half_products(max_low, max_high, first, HALF, GATE_HALF, inner, outer)
        y_high += _half_products(max_low, max_high, first + GATE_HALF, HALF, GATE_HALF, inner, outer)
        first += 4 * HALF * GATE_HALF
    if MIN:
        y_low += _half_products(min_low, min_high, first, HALF, GATE_HALF, inner, outer)
        y_high += _half_products(min_low, min_high, first + GATE_HALF, HALF, GATE_HALF, inner, outer)
        first += 4 * HALF * GATE_HALF
    if AVG:
        sum_low /= BLOCK
        sum_high /= BLOCK
        y_low += _half_products(sum_low, sum_high, first, HALF, GATE_HALF, inner, outer)
        y_high += _half_products(sum_low, sum_high, first + GATE_HALF, HALF, GATE_HALF, inner, outer)

    if NORM:
        y_low, y_high = _normal(y_low, y_high, norm_ptr, eps, GATE_HALF, outer)
    if ROTARY:
        at = row * (2 * GATE_HALF) + outer
        y_low, y_high = _turn(y_low, y_high, gate_cos_ptr + at, gate_sin_ptr + at, GATE_HALF, inside)
    out = summary_ptr + (page * heads + head) * (2 * GATE_HALF) + outer
    tl.store(out, y_low.to(summary_ptr.dtype.element_ty), mask=inside)
    tl.store(out + GATE_HALF, y_high.to(summary_ptr.dtype.element_ty), mask=inside)
