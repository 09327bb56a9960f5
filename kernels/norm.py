"""RMSNorm as the supported models compute it, alone and behind the sum of a residual."""

from __future__ import annotations

import torch

from seer_ray.kernels import cpu, gpu


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


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """``x + delta``, and its ``rms_norm``: what stands between the halves of a decoder layer.

    Args:
        x: ``[..., width]``.
        delta: of that shape; None: zeros.
        weight, eps: see ``rms_norm``.

    Returns:
        Both of the shape and dtype of ``x``.
    """
    if gpu.takes(x) and x.dtype == weight.dtype and x.stride(-1) == 1 and not torch.is_grad_enabled():
        from seer_ray.kernels import triton_rows

        return triton_rows.add_norm(x, delta, weight, eps)
    total = x if delta is None else x + delta
    return total, rms_norm(total, weight, eps)


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """The definition of ``rms_norm`` in torch."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
