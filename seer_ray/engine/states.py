"""Memory of fixed size: what layers with a recurrence or a convolution keep of each sequence, in slots."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from seer_ray.models.recurrence import Slots, States

SNAPSHOTS = 4
"""States of prompts that wait for further samples, at most: each is as large as that of a row."""


class StateSlots:
    """The states of ``max_batch`` rows by their number, then ``SNAPSHOTS`` of prompts, then one of nobody,
    which padding rows read and write.

    Attributes:
        kept: per layer the tensors ``[slots, ...]``, see ``models.recurrence``; None: the layer keeps none.
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
    def tensors(self) -> list[torch.Tensor]:
        """All that there are."""
        return _tensors(self.kept)

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
        return sum(part.numel() * part.element_size() for part in _tensors(shapes))

    def move(self, moves: list[tuple[int | None, int]]) -> None:
        """(from, to), in order; from None: nothing came before."""
        for source, target in moves:
            for part in self.tensors:
                if source is None:
                    part[target].zero_()
                else:
                    part[target] = part[source]

    def held(self, layer: int, slots: torch.Tensor) -> Slots:
        """What a layer keeps in some slots, ``[sequences]``."""
        kept = self.kept[layer]
        assert kept is not None
        return Slots(kept, slots)


def slot_count(max_batch: int) -> int:
    """Slots for so many rows."""
    return max_batch + SNAPSHOTS + 1


def _tensors(states: Iterable[States | None]) -> list[torch.Tensor]:
    return [part for one in states if one is not None for part in one if part is not None]


def _zeros(one: torch.Tensor | None, slots: int, device: torch.device) -> torch.Tensor | None:
    return None if one is None else torch.zeros(slots, *one.shape[1:], dtype=one.dtype, device=device)
