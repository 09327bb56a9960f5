"""Memory of fixed size: what layers with a recurrence or a convolution keep of each sequence, in slots."""

from __future__ import annotations

import torch

from seer_ray.models.hosted import States

SNAPSHOTS = 4
"""States of prompts that wait for further samples, at most: each is as large as a running sequence's."""


class StateSlots:
    """The states of ``max_batch`` rows by their number, then ``SNAPSHOTS`` of prompts, then one of nobody,
    which padding rows read and write.

    Attributes:
        kept: per layer the tensors ``[slots, ...]``, as ``models.hosted`` has them; None: it keeps none.
    """

    def __init__(self, shapes: tuple[States | None, ...], max_batch: int, device: torch.device) -> None:
        """``shapes``: of one sequence, ``[1, ...]`` each."""
        self.slots = slot_count(max_batch)
        self.bytes = self.bytes_of(shapes)
        """Of one slot."""
        self.kept: list[States | None] = [
            None if one is None else (_zeros(one[0], self.slots, device), _zeros(one[1], self.slots, device))
            for one in shapes
        ]

    @property
    def snapshots(self) -> range:
        """Slots of prompts."""
        return range(self.slots - 1 - SNAPSHOTS, self.slots - 1)

    @property
    def nobody(self) -> int:
        """The slot of padding rows."""
        return self.slots - 1

    @staticmethod
    def bytes_of(shapes: tuple[States | None, ...]) -> int:
        """Of one slot."""
        parts = [part for one in shapes if one is not None for part in one if part is not None]
        return sum(part.numel() * part.element_size() for part in parts)

    def move(self, moves: list[tuple[int | None, int]]) -> None:
        """(from, to), in order; from None: nothing came before."""
        for source, target in moves:
            for part in (part for one in self.kept if one is not None for part in one if part is not None):
                if source is None:
                    part[target].zero_()
                else:
                    part[target] = part[source]

    def take(self, layer: int, slots: torch.Tensor) -> States:
        """A copy of the states in some slots, ``[slots, ...]`` each."""
        one = self.kept[layer]
        assert one is not None
        conv, recurrent = (part[slots] if part is not None else None for part in one)
        return conv, recurrent

    def put(self, layer: int, slots: torch.Tensor, states: States) -> None:
        """The other way."""
        one = self.kept[layer]
        assert one is not None
        for part, new in zip(one, states, strict=True):
            if part is not None and new is not None:
                part[slots] = new.to(part.dtype)


def slot_count(max_batch: int) -> int:
    """Slots for so many rows."""
    return max_batch + SNAPSHOTS + 1


def _zeros(one: torch.Tensor | None, slots: int, device: torch.device) -> torch.Tensor | None:
    return None if one is None else torch.zeros(slots, *one.shape[1:], dtype=one.dtype, device=device)
