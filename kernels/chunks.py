"""Prompt chunks as tiles: which tokens of which rows one program of a prefill kernel takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch

from seer_ray.kernels.upload import upload


class Tile(NamedTuple):
    """The tokens of one chunk that lie in one page: what shares a selection."""

    chunk: int
    block: int
    """Of the sequence: the page is ``table[chunk, block]``."""
    start: int
    """Position of its first token."""
    end: int
    first: int
    """Packed index of its first token."""


@dataclass(frozen=True)
class Chunks:
    """Prompt chunks one behind the other, without padding. Made once for all layers of a pass."""

    spans: tuple[tuple[int, int], ...]
    """Positions of each chunk's first token and of the token past its last."""
    table: torch.Tensor
    """Pages of each chunk's sequence, ``[chunks, pages]`` int64; past a chunk's end they may be anything."""
    block: int

    @staticmethod
    def pack(chunks: Sequence[tuple[Sequence[int], int, int]], block: int, device: torch.device) -> Chunks:
        """``chunks``: (pages of the sequence, start, end) each."""
        width = max(-(-end // block) for _, _, end in chunks)
        rows = [[*pages[:width], *[0] * (width - len(pages))] for pages, _, _ in chunks]
        spans = tuple((start, end) for _, start, end in chunks)
        return Chunks(spans, upload(rows, device), block)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """In order of the packed tokens. A tile never reaches over a page, wherever its chunk begins."""
        found, first = [], 0
        for chunk, (start, end) in enumerate(self.spans):
            borders = range((start // self.block + 1) * self.block, end, self.block)
            for low, high in pairwise([start, *borders, end]):
                found.append(Tile(chunk, low // self.block, low, high, first))
                first += high - low
        return tuple(found)

    @cached_property
    def work(self) -> torch.Tensor:
        """Index and fields of every tile, on the device, ``[tiles, 6]`` int64. Those with the longest past
        come first, so that they do not begin last."""
        order = sorted(range(len(self.tiles)), key=lambda index: -self.tiles[index].block)
        rows = [(index, *self.tiles[index]) for index in order]
        return upload(rows, self.table.device)

    def split(self, q: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
        """Each chunk's queries, pages up to its end, and start."""
        parts = q.split([end - start for start, end in self.spans])
        for row, (part, (start, end)) in enumerate(zip(parts, self.spans, strict=True)):
            yield part, self.table[row, : -(-end // self.block)], start
