"""Memory that is read in pieces all over it, as the pages of K and V are."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import torch

HUGE = 2 * 2**20
"""Bytes of a huge page of x86 and of most ARM systems."""


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """As ``torch.zeros``; on a CPU in huge pages where the system has them.

    A step reads a few KiB here and there in gigabytes: in pages of 4 KiB each piece costs a walk of the
    system's page tables, a sixth of the time of sparse attention. Mapped lazily all the same.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype, device=device)
    # Private, not the default: what is shared is a file in memory, which has no huge pages.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
