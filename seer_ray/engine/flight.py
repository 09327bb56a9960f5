"""Decode steps that a device was given and whose results nobody has read yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
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

    @property
    def passed(self) -> bool:
        """Without waiting."""
        return self._event is None or self._event.query()

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


class Made(NamedTuple):
    """What the rows of a step gave."""

    tokens: list[int]
    read: np.ndarray
    """KV tokens that each row read, by layer, summed over KV heads: int64 ``[rows, layers]``."""
    logprobs: dict[int, bytes] = {}  # noqa: RUF012
    """By row, as ``logprobs.Logprobs.spell`` has them, where asked for."""
    attended: dict[int, np.ndarray] = {}  # noqa: RUF012
    """By row, as ``watch.Watch.attended`` has it, where recorded."""
    replayed: frozenset[int] = frozenset()
    """Rows that made no token: theirs was known."""


class Flight:
    """A decode step from its launch to the reading of its results.

    Args:
        sequences: its rows, not committed yet.
        began: before the step.
        ended: after it.
        read: waits for the device.
        passes: times that the weights were read.
        first: something was captured on the way, so that it took longer than others of its size.
    """

    def __init__(
        self,
        sequences: Seq[Sequence],
        began: Mark,
        ended: Mark,
        read: Callable[[], Made],
        passes: int = 1,
        first: bool = False,
    ) -> None:
        self.sequences = sequences
        self.positions = [sequence.cached for sequence in sequences]
        """Of the tokens that the rows were given."""
        self._dropped: set[Sequence] = set()
        self._began, self._ended, self._read = began, ended, read
        self.passes, self.first = passes, first

    def drop(self, sequence: Sequence) -> bool:
        """Nobody is to see what comes of a sequence's row. Whether it has one."""
        if sequence in self._dropped or sequence not in self.sequences:
            return False
        self._dropped.add(sequence)
        return True

    def results(self) -> tuple[Made, list[int]]:
        """Waits for the step. What it gave, and the rows that made a token and were not dropped."""
        made = self._read()
        rows = range(len(self.sequences))
        if not self._dropped and not made.replayed:
            return made, list(rows)
        return made, [
            row for row in rows if row not in made.replayed and self.sequences[row] not in self._dropped
        ]

    @property
    def seconds(self) -> float:
        """That the device took."""
        self._ended.wait()
        return self._ended.since(self._began)
