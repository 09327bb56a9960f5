"""Rotary embedding and the write of K and V in Triton: ``rotate_append`` on a GPU, with norms before it.

Rounds where the torch definition rounds, so rotation is equal to it bit for bit; for that, no product is
fused with a sum. A cache in 8 bits gets the numbers and scales of ``quantise``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.append import Norms
from seer_ray.kernels.launch import power_of_two
from seer_ray.kernels.quantise import KV, LEAST, TOP, tensors


def rotate_append(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    kv: KV,
    pages: torch.Tensor,
    offsets: torch.Tensor,
) -> torch.Tensor:
    """See ``kernels.append``. Allocates its result from torch's caching allocator."""
    return normalise_rotate_append(q, k, v, None, cos, sin, kv, pages, offsets)[1]


def normalise_rotate_append(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    norms: Norms | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    kv: KV,
    pages: torch.Tensor,
    offsets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``kernels.append``. Allocates its results from torch's caching allocator."""
    tokens, q_heads, dim = q.shape
    heads, block = kv.shape[1], kv.shape[3]
    group = q_heads // heads
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    pages, offsets = pages.contiguous(), offsets.contiguous()
    numbers, scales = tensors(kv)
    out = torch.empty(tokens, q_heads, dim, dtype=q.dtype, device=q.device)
    normal = q if norms is None else torch.empty_like(out)
    rotate_append_head[(heads, tokens)](
        q,
        k,
        v,
        cos,
        sin,
        numbers,
        numbers if scales is None else scales,
        pages,
        offsets,
        q if norms is None else norms.q,
        q if norms is None else norms.k,
        normal,
        out,
        0.0 if norms is None else norms.eps,
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
        v.stride(0),
        v.stride(1),
        cos.stride(0),
        sin.stride(0),
        GROUP=group,
        GROUP_PADDED=power_of_two(group),
        HALF=dim // 2,
        HALF_PADDED=power_of_two(dim // 2),
        BLOCK=block,
        TOP=TOP.get(kv.dtype),
        LEAST=LEAST,
        NORM=norms is not None,
        num_warps=1,
        enable_fp_fusion=False,
    )
    return normal, out


@triton.jit
def _turn(x, turned, cos, sin):
    """``x * cos + turned * sin``, each product and the sum rounded to the dtype of ``x``."""
    cos = cos.to(x.dtype).to(tl.float32)
    sin = sin.to(x.dtype).to(tl.float32)
    straight = (x.to(tl.float32) * cos).to(x.dtype)
    across = (turned.to(tl.float32) * sin).to(x.dtype)
    return (straight.to(tl.float32) + across.to(tl.float32)).to(x.dtype)


@triton.jit
def _normal(low, high, weight_low, weight_high, eps, HALF: tl.constexpr, AXIS: tl.constexpr):
    """RMSNorm of vectors in two halves, zeros beyond them; see ``kernels.norm``."""
    wide_low = low.to(tl.float32)
    wide_high = high.to(tl.float32)
    squares = tl.sum(wide_low * wide_low, AXIS, keep_dims=True) + tl.sum(
        wide_high * wide_high, AXIS, keep_dims=True
    )
    inverse = 1.0 / tl.sqrt(squares / (2 * HALF) + eps)
    low = (wide_low * inverse).to(low.dtype).to(tl.float32) * weight_low.to(tl.float32)
    high = (wide_high * inverse).to(high.dtype).to(tl.float32) * weight_high.to(tl.float32)
    return low, high


@triton.jit
def _keep(low, high, to, scale_to, inside, HALF: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr):
    """One vector into the cache; with a ``TOP``, the format's largest number, with its scale."""
    if TOP is not None:
        low = tl.where(inside, low.to(tl.float32), 0.0)
        high = tl.where(inside, high.to(tl.float32), 0.0)
        largest = tl.maximum(tl.max(tl.abs(low), 0), tl.max(tl.abs(high), 0))
        scale = tl.maximum(largest, LEAST) * (1.0 / TOP)
        tl.store(scale_to, scale)
        inverse = tl.div_rn(1.0, scale)
        low *= inverse
        high *= inverse
        if to.dtype.element_ty == tl.int8:
            # To whole numbers, nearest even: behind the point the sum has no digits.
            low = (low + 12582912.0) - 12582912.0
            high = (high + 12582912.0) - 12582912.0
    tl.store(to, low.to(to.dtype.element_ty), mask=inside)
    tl.store(to + HALF, high.to(to.dtype.element_ty), mask=inside)


@triton.jit
def rotate_append_head(
    q_ptr,
    k_ptr,
    v_ptr,
    cos_ptr,
    sin_ptr,
    kv_ptr,
    scales_ptr,
    pages_ptr,
    offsets_ptr,
    q_norm_ptr,
    k_norm_ptr,
    normal_ptr,
    out_ptr,
    eps,
    q_token,
    q_head,
    k_token,
    k_head,
    v_token,
    v_head,
    cos_token,
    sin_token,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    TOP: tl.constexpr,
    LEAST: tl.constexpr,
    NORM: tl.constexpr,
):
    head = tl.program_id(0)
    heads = tl.num_programs(0)
    token = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, HALF_PADDED)
    inside = channel < HALF
    cos_low = tl.load(cos_ptr + token * cos_token + channel, mask=inside)
    cos_high = tl.load(cos_ptr + token * cos_token + HALF + channel, mask=inside)
    sin_low = tl.load(sin_ptr + token * sin_token + channel, mask=inside)
    sin_high = tl.load(sin_ptr + token * sin_token + HALF + channel, mask=inside)

    page = tl.load(pages_ptr + token).to(tl.int64)
    offset = tl.load(offsets_ptr + token).to(tl.int64)
    slot = (page * heads + head) * (2 * BLOCK) + offset
    to = kv_ptr + slot * (2 * HALF) + channel
    k_ptr += token * k_token + head * k_head + channel
    low = tl.load(k_ptr, mask=inside, other=0.0)
    high = tl.load(k_ptr + HALF, mask=inside, other=0.0)
    if NORM:
        weight_low = tl.load(k_norm_ptr + channel, mask=inside, other=0.0)
        weight_high = tl.load(k_norm_ptr + HALF + channel, mask=inside, other=0.0)
        wide_low, wide_high = _normal(low, high, weight_low, weight_high, eps, HALF, 0)
        low = wide_low.to(low.dtype)
        high = wide_high.to(high.dtype)
    turned_low = _turn(low, -high, cos_low, sin_low)
    turned_high = _turn(high, low, cos_high, sin_high)
    _keep(turned_low, turned_high, to, scales_ptr + slot, inside, HALF, TOP, LEAST)
    to += BLOCK * (2 * HALF)
    v_ptr += token * v_token + head * v_head + channel
    low = tl.load(v_ptr, mask=inside)
    high = tl.load(v_ptr + HALF, mask=inside)
    _keep(low, high, to, scales_ptr + slot + BLOCK, inside, HALF, TOP, LEAST)

    member = tl.arange(0, GROUP_PADDED)
    mask = (member < GROUP)[:, None] & inside[None, :]
    q_head_ptr = q_ptr + token * q_token + (head * GROUP + member)[:, None] * q_head + channel[None, :]
    low = tl.load(q_head_ptr, mask=mask, other=0.0)
    high = tl.load(q_head_ptr + HALF, mask=mask, other=0.0)
    to = ((token * heads + head) * GROUP + member)[:, None] * (2 * HALF) + channel[None, :]
    if NORM:
        weight_low = tl.load(q_norm_ptr + channel, mask=inside, other=0.0)[None, :]
        weight_high = tl.load(q_norm_ptr + HALF + channel, mask=inside, other=0.0)[None, :]
        wide_low, wide_high = _normal(low, high, weight_low, weight_high, eps, HALF, 1)
        low = wide_low.to(low.dtype)
        high = wide_high.to(high.dtype)
        tl.store(normal_ptr + to, low, mask=mask)
        tl.store(normal_ptr + to + HALF, high, mask=mask)
    out = out_ptr + to
    tl.store(out, _turn(low, -high, cos_low[None, :], sin_low[None, :]), mask=mask)
    tl.store(out + HALF, _turn(high, low, cos_high[None, :], sin_high[None, :]), mask=mask)
