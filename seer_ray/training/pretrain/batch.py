"""A batch of next-token training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from seer_ray.models.packed import Documents

NO_TARGET = -100


@dataclass(frozen=True)
class Batch:
    """Packed documents."""

    tokens: Tensor
    """``[tokens]``"""
    targets: Tensor
    """The token to be predicted at each position, or ``NO_TARGET``: ``[tokens]``."""
    documents: Documents
    steps: float = 0
    """Mean length of the problems, in generator steps; 0: no problems."""

    def targets_per_document(self) -> list[int]:
        """How many targets each document has."""
        wanted = (self.targets != NO_TARGET).long()
        return [int(part.sum()) for part in wanted.split(self.documents.lengths)]


class Data(Protocol):
    """What a model learns."""

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """One rank's share of a training step's batch: a function of the settings, the seed and these."""

    def held_out(self) -> Iterator[tuple[str, Batch]]:
        """Batches that are not trained on, each with the name that its figures go under."""
