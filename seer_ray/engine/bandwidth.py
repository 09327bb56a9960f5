"""What a decode step has to read, and how fast the device could: the floor of its time."""

from __future__ import annotations

import time
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import torch

from seer_ray.engine.passes import Decoder
from seer_ray.kernels.quantise import vector_bytes
from seer_ray.models.load import LoadedModel

COPY_BYTES = {"cpu": 96 << 20, "cuda": 1 << 30}
"""Of the copy that gives the copy rate: several times the caches."""


class Copy:
    """A large copy: what the memory can do. Bytes count as read and as written."""

    def __init__(self, device: torch.device, size: int | None = None) -> None:
        size = size or COPY_BYTES[device.type]
        self.source = torch.ones(size, dtype=torch.uint8, device=device)
        self.target = torch.zeros_like(self.source)
        self.bytes = 2 * size

    def __call__(self, index: int = 0) -> None:
        self.target.copy_(self.source)


@cache
def copy_rate(device: torch.device) -> float:
    """Bytes a second that a copy on the device reads and writes: median of seven, measured once a process."""
    copy, times = Copy(device), []
    for _ in range(9):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        copy()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return copy.bytes / median(times[2:])


class StepBytes:
    """Counts the bytes that decode steps cannot do without: weights, K and V of what was selected, summaries
    of the blocks that were ranked, states; of all ranks together, each with as many weights as this one. A
    mixture of experts counts with all of them."""

    def __init__(self, loaded: LoadedModel, decoder: Decoder) -> None:
        model: Any = loaded.model
        ranks = decoder.group.size
        table = model.get_input_embeddings().weight
        tied = model.get_output_embeddings().weight is table
        # Of the embeddings a step reads a row, unless they are the last product's weights too.
        self.weights = ranks * sum(_size(p) for p in model.parameters() if tied or p is not table)
        cache = decoder.cache
        kept = next((kv.dtype for kv in cache.kv if kv is not None), loaded.dtype)
        self.token = 2 * vector_bytes(kept, cache.head_dim)
        """K and V of one token and KV head of a layer."""
        self.block_size = cache.block
        widths = [s.shape[2] * s.element_size() for s in cache.summary if s is not None]
        self.block = ranks * cache.heads * sum(widths)
        """Summaries of one block in all layers."""
        self.state = cache.states.bytes if cache.states is not None else 0
        """What layers keep of one sequence beside K and V."""

    def of(self, read: int, lengths: np.ndarray, passes: int) -> int:
        """Of one step.

        Args:
            read: KV tokens, summed over rows, layers and the KV heads of all ranks.
            lengths: tokens of each row in the cache.
            passes: over the weights.
        """
        blocks = int((lengths // self.block_size).sum())
        kept = blocks * self.block + len(lengths) * self.state
        return passes * self.weights + read * self.token + kept


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
