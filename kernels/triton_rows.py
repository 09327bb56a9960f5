"""What stands between products in Triton: ``norm`` and the gated MLP's middle on a GPU, one launch each.

Rounds where the torch definitions round. A program computes one row, so rows know no batch mates.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.launch import power_of_two

TILE = 1024
"""Numbers of a row that a program of ``silu_product`` computes."""


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``kernels.norm``."""
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    total = x if delta is None else torch.empty_like(rows)
    added = rows if delta is None else delta.reshape(-1, width)
    out = torch.empty_like(rows)
    add_norm_row[(len(rows),)](
        rows,
        added,
        weight,
        total,
        out,
        eps,
        rows.stride(0),
        added.stride(0),
        ADD=delta is not None,
        WIDTH=width,
        WIDTH_PADDED=power_of_two(width),
        num_warps=4 if width <= 2048 else 8,
    )
    return total.view(x.shape), out.view(x.shape)


def silu_product(x: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` of rows that hold both, ``[tokens, 2 * inner]`` -> ``[tokens, inner]``."""
    tokens, inner = x.shape[0], x.shape[1] // 2
    out = torch.empty(tokens, inner, dtype=x.dtype, device=x.device)
    silu_product_tile[(triton.cdiv(inner, TILE), tokens)](x, out, x.stride(0), inner, TILE=TILE, num_warps=4)
    return out


@triton.jit
def add_norm_row(
    x_ptr,
    delta_ptr,
    weight_ptr,
    total_ptr,
    out_ptr,
    eps,
    x_row,
    delta_row,
    ADD: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, WIDTH_PADDED)
    inside = channel < WIDTH
    x = tl.load(x_ptr + row * x_row + channel, mask=inside, other=0.0)
    if ADD:
        delta = tl.load(delta_ptr + row * delta_row + channel, mask=inside, other=0.0)
        x = (x.to(tl.float32) + delta.to(tl.float32)).to(x.dtype)
        tl.store(total_ptr + row * WIDTH + channel, x, mask=inside)
    wide = x.to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / WIDTH + eps)
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0)
    scaled = (wide * inverse).to(x.dtype).to(tl.float32) * weight.to(tl.float32)
    tl.store(out_ptr + row * WIDTH + channel, scaled.to(x.dtype), mask=inside)


@triton.jit
def silu_product_tile(x_ptr, out_ptr, x_row, inner, TILE: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = channel < inner
    gate = tl.load(x_ptr + row * x_row + channel, mask=inside, other=0.0)
    up = tl.load(x_ptr + row * x_row + inner + channel, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    activated = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    product = activated.to(tl.float32) * up.to(tl.float32)
    tl.store(out_ptr + row * inner + channel, product.to(gate.dtype), mask=inside)
