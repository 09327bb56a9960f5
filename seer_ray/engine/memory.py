"""What memory a device has, and what a piece of work takes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import torch


class Memory(Protocol):
    """Of one device, as the engine's sizes go by it."""

    def free(self) -> int:
        """Bytes that an engine may take now."""
        ...

    def peak_of(self, work: Callable[[], None]) -> int:
        """Does the work. Bytes that it held at once beyond what was held before.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        ...


class DeviceMemory:
    """A GPU's, as torch and the driver count it."""

    SHARE = 0.98
    """Of the free memory: fragments, and what libraries take that torch does not know of."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self._device)[0] * self.SHARE)

    def peak_of(self, work: Callable[[], None]) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_reserved(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_reserved(self._device) - before


def host_memory(ranks: int) -> int:
    """Bytes that one of the ranks of an engine on a CPU may take: half of what the machine has, for all."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // ranks


def gib(size: int) -> str:
    """For errors."""
    return f"{size / 2**30:.2f} GiB" if abs(size) >= 2**28 else f"{size / 2**20:.2f} MiB"
