"""Write the K and V of new tokens into their pages."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seer_ray.kernels import cpu, gpu
from seer_ray.kernels.norm import rms_norm
from seer_ray.kernels.quantise import KV, quantise, tensors
from seer_ray.kernels.rotary import rotate


class Norms(NamedTuple):
    """RMSNorms of the channels of each head, see ``kernels.norm``."""

    q: torch.Tensor
    """Weight, ``[head_dim]``."""
    k: torch.Tensor
    eps: float


def append(k: torch.Tensor, v: torch.Tensor, kv: KV, pages: torch.Tensor, offsets: torch.Tensor) -> None:
    """In place. Several padding rows may name the same slot of the dummy page.

    Args:
        k: rotated keys, ``[tokens, kv_heads, head_dim]``.
        v: values, same shape.
        kv: cache of the layer, ``[pages, kv_heads, 2, block, head_dim]``; rounds to its dtype, or quantises.
        pages: physical page of each token, ``[tokens]``.
        offsets: slot in the page, ``[tokens]``.
    """
    numbers, scales = tensors(kv)
    for part, x in enumerate((k, v)):
        if scales is None:
            numbers[:, :, part][pages, :, offsets] = x.to(kv.dtype)
        else:
            kept, by = quantise(x, kv.dtype)
            numbers[:, :, part][pages, :, offsets], scales[:, :, part][pages, :, offsets] = kept, by


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
    dtype = q.dtype if kv.dtype == torch.int8 else kv.dtype
    same = all(tensor.dtype == dtype for tensor in (q, k, v)) and cos.dtype == torch.float32
    if same and cpu.takes_rows(q, k, v):
        return cpu.rotate_append(q, k, v, cos, sin, kv, pages, offsets)
    append(rotate(k, cos, sin), v, kv, pages, offsets)
    return rotate(q, cos, sin)


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
    """``rotate_append`` behind the norms of q and k.

    Args:
        norms: None: there are none, or they are done.
        others: see ``rotate_append``.

    Returns:
        Queries before and after rotation, ``[tokens, q_heads, head_dim]``.
    """
    if norms is not None and gpu.takes(kv) and norms.q.dtype == norms.k.dtype == q.dtype:
        from seer_ray.kernels import triton_append

        return triton_append.normalise_rotate_append(q, k, v, norms, cos, sin, kv, pages, offsets)
    if norms is not None:
        q, k = rms_norm(q, norms.q, norms.eps), rms_norm(k, norms.k, norms.eps)
    return q, rotate_append(q, k, v, cos, sin, kv, pages, offsets)
