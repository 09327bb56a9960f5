"""Seven tokens to be rotated and written into five pages, two of them to page 4 and two to page 3."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seer_ray.models.rope import RopeTable

Q_HEADS, HEADS, DIM, BLOCK, PAGES = 6, 2, 48, 16, 5


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class AppendCase(NamedTuple):
    """``rotate_append``'s arguments but for the cache, whose shape is ``cache``."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    pages: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def of(cls, dtype: torch.dtype) -> AppendCase:
        offsets = torch.tensor([0, 15, 7, 3, 8, 9, 1])
        q, k, v = (draw(7, n, DIM, dtype=dtype, seed=n) for n in (Q_HEADS, HEADS, HEADS))
        tables = RopeTable.from_theta(10000.0, DIM).at(torch.arange(7) * 31 + 5)
        return cls(q, k, v, *tables, torch.tensor([3, 3, 1, 0, 4, 2, 4]), offsets)

    @property
    def cache(self) -> tuple[int, ...]:
        return PAGES, HEADS, 2, BLOCK, DIM
