"""Decode steps that a device was given and whose results nobody has read yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import NamedTuple

import torch

from seer_ray.engine.sequence import Sequence


class Mark:
    """A point in the device's work: passed when all that was launched before it is done."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        self._time = 0.0
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))
        else:  # works at once
            self._time = time.perf_counter()

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()

    def since(self, other: Mark) -> float:
        """Seconds between two marks that are passed."""
        if self._event is not None and other._event is not None:
            return other._event.elapsed_time(self._event) / 1e3
        return self._time - other._time


class Readback:
    """A tensor on its way to the host, as it is at this point of the device's work."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._host.copy_(tensor, non_blocking=True)
        self.there = Mark(tensor.device)

    def wait(self) -> torch.Tensor:
        self.there.wait()
        return self._host


class Row(NamedTuple):
    """What one row of a step gave."""

    token: int
    read: list[int]
    """KV tokens that it read, by layer, summed over KV heads."""
    late: bool = False
    """The token was chosen after the step: one that was launched ahead was given another."""
    logprobs: bytes = b""
    """As ``logprobs.Logprobs.spell`` has them; empty: not asked for."""


class Flight:
    """A decode step from its launch to the reading of its results.

    Args:
        sequences: its rows, not committed yet.
        began: before the step.
        ended: after it.
        read: waits for the device; one result a row, None for a replayed token.
        passes: times that the weights were read.
    """

    def __init__(
        self,
        sequences: Seq[Sequence],
        began: Mark,
        ended: Mark,
        read: Callable[[], Seq[Row | None]],
        passes: int = 1,
    ) -> None:
        self._rows = {sequence: (index, sequence.cached) for index, sequence in enumerate(sequences)}
        self._began, self._ended, self._read = began, ended, read
        self.passes = passes

    def drop(self, sequence: Sequence) -> bool:
        """Nobody is to see what comes of a sequence's row. Whether it has one."""
        return self._rows.pop(sequence, None) is not None

    def results(self) -> list[tuple[Sequence, int, Row]]:
        """Sequence, position of the token that it was given, and result, of the rows that made a token and
        were not dropped."""
        found = self._read()
        made = [(sequence, at, found[index]) for sequence, (index, at) in self._rows.items()]
        return [(sequence, at, row) for sequence, at, row in made if row is not None]

    @property
    def seconds(self) -> float:
        """That the device took."""
        self._ended.wait()
        return self._ended.since(self._began)
