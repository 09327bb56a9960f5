"""Rotary position embedding, rotate-half form (NeoX), and its inverse."""

from __future__ import annotations

import torch


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """``x [..., heads, dim]`` at positions whose table rows are ``cos, sin [..., dim]``."""
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)
    return x * cos + rotate_half(x) * sin


def unrotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Inverse of ``rotate``, in fp32. Tables that carry an attention scaling are divided out."""
    x, cos, sin = x.float(), cos.float().unsqueeze(-2), sin.float().unsqueeze(-2)
    # cos² + sin² is the square of the scaling, which channels that are not turned do not have.
    return (x * cos - rotate_half(x) * sin) / (cos**2 + sin**2)
