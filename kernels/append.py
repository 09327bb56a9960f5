"""Write the K and V of new tokens into their pages."""

from __future__ import annotations

import torch


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
