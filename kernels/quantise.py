"""K and V in 8 bits: a vector of one token and KV head is numbers in int8 or float8, times a scale.

The scale is the vector's largest magnitude over the largest number of the format, so what is kept of a token
depends on that token alone: not on its page, its batch mates or how its prompt was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from seer_ray.kernels.zeros import zeros

TOP = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The formats, each with its largest number."""
LEAST = 2.0**-100
"""Magnitude below which a vector counts as this large, so that nothing is divided by zero."""


@dataclass(frozen=True)
class Quantised:
    """A cache in 8 bits, in place of the tensor ``kv``. Indexed, it gives what it stands for, in fp32."""

    numbers: torch.Tensor
    """``[pages, kv_heads, 2, block, head_dim]``, int8 or float8_e4m3fn."""
    scales: torch.Tensor
    """Of the vectors, fp32 ``[pages, kv_heads, 2, block]``."""

    @staticmethod
    def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Quantised:
        return Quantised(zeros(shape, dtype, device), zeros(shape[:-1], torch.float32, device))

    def __getitem__(self, index: Any) -> torch.Tensor:
        """``index``: of all axes but the last."""
        return self.numbers[index].float() * self.scales[index].unsqueeze(-1)

    @property
    def shape(self) -> torch.Size:
        return self.numbers.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.numbers.dtype

    @property
    def device(self) -> torch.device:
        return self.numbers.device

    @property
    def is_cuda(self) -> bool:
        return self.numbers.is_cuda

    @property
    def nbytes(self) -> int:
        return self.numbers.nbytes + self.scales.nbytes


KV = torch.Tensor | Quantised
"""The cache of a layer."""


def tensors(kv: KV) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Numbers, and their scales where the cache is quantised."""
    return (kv.numbers, kv.scales) if isinstance(kv, Quantised) else (kv, None)


def vector_bytes(dtype: torch.dtype, dim: int) -> int:
    """Memory of K or V of one token and KV head, with its scale if the dtype has one."""
    return dim * dtype.itemsize + (torch.float32.itemsize if dtype in TOP else 0)


def quantise(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors ``[..., dim]`` in 8 bits, rounded to nearest even, and their scales, fp32 ``[...]``.

    Products alone but for one division, so that every path rounds alike.
    """
    x, top = x.float(), TOP[dtype]
    scales = x.abs().amax(-1).clamp(min=LEAST) * (1.0 / top)
    scaled = x * scales.reciprocal().unsqueeze(-1)
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scales
