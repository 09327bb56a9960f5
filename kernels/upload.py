"""From what the host knows to a tensor on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def upload(
    values: Sequence[float] | Sequence[Sequence[float]],
    device: torch.device,
    dtype: torch.dtype = torch.int64,
) -> torch.Tensor:
    """Numbers on the device; the host waits for nothing that the device still has to do.

    On a GPU they are copied from page-locked memory, in the order of the stream. Its allocator gives that
    memory to nobody else before the copy is done.
    """
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)
