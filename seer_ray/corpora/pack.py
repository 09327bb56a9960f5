"""A row of training tokens: documents one after the other, each for itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows", Tensor, range)


@dataclass(frozen=True)
class Pack:
    """Documents side by side. Positions, blocks and attention begin anew with each."""

    tokens: Tensor
    """Ids, ``[tokens]``."""
    bounds: tuple[int, ...]
    """Where documents begin, and the end: one more than there are documents."""

    @classmethod
    def of(cls, documents: Sequence[Tensor], device: torch.device | str = "cpu") -> Pack:
        bounds = [0]
        for document in documents:
            bounds.append(bounds[-1] + len(document))
        return cls(torch.cat(list(documents)).to(device, torch.int64), tuple(bounds))

    def documents(self) -> Iterator[slice]:
        """The tokens of each document."""
        for start, end in zip(self.bounds, self.bounds[1:], strict=False):
            yield slice(start, end)

    @property
    def lengths(self) -> list[int]:
        """Of the documents."""
        return [d.stop - d.start for d in self.documents()]

    @cached_property
    def positions(self) -> Tensor:
        """Of the tokens in their documents, ``[tokens]``."""
        return torch.cat([torch.arange(length, device=self.tokens.device) for length in self.lengths])


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one update learns from: every ``parts``-th, from the ``part``-th on."""

    batch: int = 0
    """Number of the batch; its shares follow each other."""
    part: int = 0
    parts: int = 1

    def of(self, rows: Rows) -> Rows:
        """Those of a document's rows, or of what is known of each, ``[rows, ...]``."""
        return rows[self.part :: self.parts]


EVERY_ROW = Share()


def first_row(length: int, block: int, skip: float) -> int:
    """First row of a document that is trained on.

    Args:
        length: of the document, in tokens.
        block: tokens a block; rows of block 0 have no earlier block to rank.
        skip: share of the rows to leave out, from the first.
    """
    return min(length, max(block, int(skip * length)))
