"""RMSNorm as the supported models compute it."""

from __future__ import annotations

import torch

from seer_ray.kernels import cpu


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``x / rms(x) * weight``: statistics in fp32, rounded to the dtype of ``x`` before the weight.

    Args:
        x: ``[..., width]``.
        weight: ``[width]``.
        eps: added to the mean square.

    Returns:
        Shape and dtype of ``x``.
    """
    if cpu.takes_rows(x, weight) and x.dtype == weight.dtype:
        return cpu.rms_norm(x, weight, eps)
    return reference(x, weight, eps)


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """The definition of ``rms_norm`` in torch."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
