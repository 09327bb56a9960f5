"""The pass that verifies: the last token of each row and its drafts, all read by dense attention at once.

What it writes takes the place of what drafts have written: K, V and summaries at the positions of tokens that
are accepted are those of dense decoding. Behind them stands what nobody reads before it is written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch

from seer_ray.engine.pages import Keeps
from seer_ray.engine.passes import DecodePass, Decoder, FullPages, RowPages
from seer_ray.kernels.spans import Spans
from seer_ray.selectors.base import CurrentPages


class Placed(NamedTuple):
    """Where the packed tokens of a pass stand. Tokens of no row fill up a pass of fixed shape: they stand at
    position 0 of the dummy page."""

    position: torch.Tensor
    """``[tokens]``"""
    row_of: torch.Tensor
    """``[tokens]``; -1: of no row."""
    starts: torch.Tensor
    """First token of each row, ``[rows]``."""
    lives: torch.Tensor
    """Tokens of each row, ``[rows]``; 0: padding."""
    first: torch.Tensor
    """Position of each row's first token, ``[rows]``."""
    most: int
    """Tokens of a row, at most."""


class SpanPages(RowPages):
    """The rows of a verification in the pages of one group: everything that their last tokens see."""

    def __init__(
        self, table: torch.Tensor, placed: Placed, block: int, heads: int, window: int | None
    ) -> None:
        row, last = placed.row_of.clamp(min=0), placed.first + placed.lives.clamp(min=1) - 1
        live = placed.row_of >= 0
        self.pages = torch.where(live, table[row, placed.position // block], 0)
        """Page of each token, ``[tokens]``."""
        self.skips, self.window = None, window
        listed, counts = table, last // block + 1
        if window is not None:
            begin = (placed.first - window + 1).clamp(min=0) // block
            width = Keeps(window + placed.most - 1).pages(table.shape[1] * block, block)
            index = begin.unsqueeze(1) + torch.arange(width, device=table.device)
            listed = table.gather(1, index.clamp(max=table.shape[1] - 1))
            counts = last // block - begin + 1
        self.ids = listed.unsqueeze(1).expand(-1, heads, -1)
        self.counts = counts.unsqueeze(1).expand(-1, heads)


class VerifyPass(DecodePass):
    """A few tokens of each row, packed. In a pass no row has more of them than a page has slots, so that it
    fills one page at most."""

    def __init__(
        self,
        decoder: Decoder,
        tables: Sequence[torch.Tensor],
        placed: Placed,
        completed: list[tuple[int, int]] | None,
    ) -> None:
        """
        Args:
            decoder: shared state.
            tables: page table of the rows for each group, ``[rows, max_pages]``.
            placed: the tokens.
            completed: see ``DecodePass``.
        """
        cache, block = decoder.cache, decoder.cache.block
        self.decoder, self._selections, self._slots, self.dense = decoder, None, None, True
        self._placed, self._completed = placed, completed
        self.position, self.offsets = placed.position, placed.position % block
        self.tails = (placed.first + placed.lives.clamp(min=1) - 1) % block + 1
        self.spans = Spans(placed.starts, placed.lives, placed.row_of.clamp(min=0), placed.most)
        self.groups = [
            SpanPages(table, placed, block, cache.heads, group.window)
            for table, group in zip(tables, cache.groups, strict=True)
        ]
        self._table = tables[0] if tables else None
        self._rotary = {}

    @cached_property
    def full(self) -> FullPages | CurrentPages:
        """See ``DecodePass``. On the device each row has a place: the end of the page that its first token is
        in, or that token where the row does not come so far."""
        if self._completed is not None:
            pages, first = [page for page, _ in self._completed], [at for _, at in self._completed]
            return FullPages(self.decoder, pages, first)
        assert self._table is not None
        block, first_at = self.decoder.cache.block, self._placed.first
        edge = (first_at // block + 1) * block - 1
        fills = edge < first_at + self._placed.lives
        at = torch.where(fills, edge, first_at)
        # A row of no tokens stands where no page ends.
        at = torch.where(self._placed.lives > 0, at, 0)
        page = self._table.gather(1, (at // block).unsqueeze(1)).squeeze(1)
        return CurrentPages(page, at, block)

    def note(self, layer: int, page_ids: torch.Tensor, counts: torch.Tensor) -> None:
        """Nothing: what a dense pass reads is known to the host."""
