"""Write the K and V of new tokens into their pages."""

from __future__ import annotations

import torch

from seer_ray.kernels import cpu, gpu
from seer_ray.kernels.rotary import rotate


def append(
    k: torch.Tensor, v: torch.Tensor, kv: torch.Tensor, pages: torch.Tensor, offsets: torch.Tensor
) -> None:
    """In place. Several padding rows may name the same slot of the dummy page.

    Args:
        k: rotated keys, ``[tokens, kv_heads, head_dim]``.
        v: values, same shape.
        kv: cache of the layer, ``[pages, kv_heads, 2, block, head_dim]``.
        pages: physical page of each token, ``[tokens]``.
        offsets: slot in the page, ``[tokens]``.
    """
    kv[:, :, 0][pages, :, offsets] = k.to(kv.dtype)
    kv[:, :, 1][pages, :, offsets] = v.to(kv.dtype)


def rotate_append(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    kv: torch.Tensor,
    pages: torch.Tensor,
    offsets: torch.Tensor,
) -> torch.Tensor:
    """``append`` of the rotated keys, and the rotated queries.

    Args:
        q: before rotation, ``[tokens, q_heads, head_dim]``.
        k: before rotation, ``[tokens, kv_heads, head_dim]``.
        v: values, same shape.
        cos, sin: rotary table rows of the tokens, ``[tokens, head_dim]``.
        kv, pages, offsets: see ``append``.

    Returns:
        ``[tokens, q_heads, head_dim]``.
    """
    if gpu.takes(kv):
        from seer_ray.kernels import triton_append

        return triton_append.rotate_append(q, k, v, cos, sin, kv, pages, offsets)
    same = all(tensor.dtype == kv.dtype for tensor in (q, k, v)) and cos.dtype == torch.float32
    if same and cpu.takes_rows(q, k, v, kv):
        return cpu.rotate_append(q, k, v, cos, sin, kv, pages, offsets)
    append(rotate(k, cos, sin), v, kv, pages, offsets)
    return rotate(q, cos, sin)
