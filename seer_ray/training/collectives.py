"""What the processes of one training job tell each other. With one process, nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def place() -> tuple[int, int]:
    """This process's rank and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def average(module: nn.Module, numbers: Sequence[float]) -> list[float]:
    """Means over all processes: of the gradients, in place, and of some numbers, which are returned.

    One all-reduce of one flat fp32 buffer. A gradient that a process does not have counts as zero.
    """
    world = place()[1]
    if world == 1:
        return list(numbers)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients: list[Tensor] = [parameter.grad for parameter in trained if parameter.grad is not None]
    extra = torch.tensor(list(numbers), dtype=torch.float32, device=gradients[0].device)
    flat = torch.cat([*(gradient.float().reshape(-1) for gradient in gradients), extra])
    dist.all_reduce(flat)
    flat /= world
    parts = flat.split([*(gradient.numel() for gradient in gradients), len(extra)])
    for gradient, part in zip(gradients, parts[:-1], strict=True):
        gradient.copy_(part.view_as(gradient))
    return parts[-1].tolist()


def from_first(value: Any) -> Any:
    """What the first process has, in all of them."""
    if place()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def same_weights(module: nn.Module) -> None:
    """The first process's weights in all of them."""
    if place()[1] > 1:
        for parameter in module.parameters():
            if parameter.requires_grad:
                dist.broadcast(parameter.data, src=0)
