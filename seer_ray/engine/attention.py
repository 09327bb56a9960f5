"""The two forward passes of an engine as the attention layers see them: a prompt chunk and a decode step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from seer_ray.engine.cache import PagedCache
from seer_ray.engine.watch import Watch
from seer_ray.kernels.append import rotate_append
from seer_ray.kernels.attend import attend
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.prefill import prefill
from seer_ray.kernels.select import select
from seer_ray.kernels.upload import upload
from seer_ray.models.group import ALONE, Group
from seer_ray.models.plan import LayerPlan
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import CurrentPages, FullKeys, Query, Selector, StepView


@dataclass(frozen=True)
class Attention:
    """What all passes share: cache, rotary tables, plan, and the selectors that the plan named."""

    cache: PagedCache
    rope: RopeTable
    plan: LayerPlan
    selectors: list[Selector | None]
    group: Group = ALONE
    """Ranks, each with KV heads of its own."""


class FullPages:
    """Pages that this pass fills, to be summarised once their last token is written."""

    def __init__(self, attention: Attention, pages: list[int], first: list[int]) -> None:
        device = attention.cache.table.device
        self.attention = attention
        self.pages, self.first = upload(pages, device), upload(first, device)
        position = self.first.unsqueeze(1) + torch.arange(attention.cache.block, device=device)
        self.cos, self.sin = attention.rope.at(position)

    def summarise(self, layer: int, group: slice = slice(None)) -> None:
        cache, selector = self.attention.cache, self.attention.selectors[layer]
        summary = cache.summary[layer]
        if selector is not None and summary is not None and len(self.pages):
            pages = self.pages[group]
            keys = cache.kv[layer][pages, :, 0]
            full = FullKeys(keys, self.cos[group], self.sin[group], self.first[group])
            summary[pages] = selector.summarise(full).to(summary.dtype)


class Tiles:
    """The tokens of a pass by the pages that they are written to: those of one page share a selection."""

    def __init__(self, chunks: Chunks) -> None:
        device, block = chunks.table.device, chunks.block
        rows = [(tile.chunk, tile.block, tile.first, tile.end - tile.start) for tile in chunks.tiles]
        chunk, index, first, self._count = upload(rows, device).unbind(1)
        self.table = chunks.table[chunk]
        """Pages of each tile's sequence, ``[tiles, max_pages]``."""
        self.lengths = index * block + 1
        """Of what a tile chooses from: the blocks before its own are complete, ``[tiles]``."""
        slot = torch.arange(block, device=device)
        self._used = (slot < self._count.unsqueeze(1)).view(-1, block, 1, 1)
        self._tokens = first.unsqueeze(1) + torch.minimum(slot, self._count.unsqueeze(1) - 1)

    def mean(self, scores: torch.Tensor) -> torch.Tensor:
        """Of the tokens of each tile: ``[tokens, kv_heads, max_pages]`` -> ``[tiles, ...]``."""
        total = scores[self._tokens].masked_fill_(~self._used, 0).sum(1)
        return total / self._count.view(-1, 1, 1)


class PrefillPass:
    """Chunks of one or several prompts, packed without padding; each attends to its own past."""

    def __init__(self, attention: Attention, chunks: list[tuple[list[int], int, int]]) -> None:
        """``chunks``: (pages of the sequence, start, end) each."""
        self.attention = attention
        cache, device = attention.cache, attention.cache.table.device
        self.chunks = Chunks.pack(chunks, cache.block, device)
        tokens = [(index, at) for index, (_, start, end) in enumerate(chunks) for at in range(start, end)]
        self.chunk, self.position = upload(tokens, device).unbind(1)
        position = self.position
        self.cos, self.sin = attention.rope.at(position)
        self.offsets = position % cache.block
        self.pages = self.chunks.table[self.chunk, position // cache.block]
        filled = [
            (pages[index], index * cache.block)
            for pages, start, end in chunks
            for index in range(start // cache.block, end // cache.block)
        ]
        self.full = FullPages(attention, [page for page, _ in filled], [first for _, first in filled])

    def attend(
        self, layer: int, q_nope: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        cache, spec = self.attention.cache, self.attention.plan.layers[layer]
        kv, selector = cache.kv[layer], self.attention.selectors[layer]
        q = rotate_append(q_nope, k, v, self.cos, self.sin, kv, self.pages, self.offsets)
        self.full.summarise(layer)
        dense = not self.attention.plan.sparse_prefill or self.chunks.table.shape[1] <= (spec.blocks or 0)
        if dense or selector is None or spec.blocks is None:
            return prefill(q, kv, self.chunks, scale)
        scores = self.tiles.mean(
            selector.scores(Query(q_nope, q, kv, cache.summary[layer], scale), self.view)
        )
        table, lengths = self.tiles.table, self.tiles.lengths
        chosen = select(scores, table, lengths, cache.block, spec.blocks, spec.sink, spec.threshold)
        return prefill(q, kv, self.chunks, scale, *chosen)

    @cached_property
    def view(self) -> StepView:
        """The tokens as rows of a step."""
        table = self.chunks.table[self.chunk]
        return StepView(self.position, self.position + 1, table, self.attention.cache.block)

    @cached_property
    def tiles(self) -> Tiles:
        """What shares a selection."""
        return Tiles(self.chunks)


class DecodePass:
    """One token of each row. Padding rows stand at position 0 of the dummy page."""

    def __init__(
        self,
        attention: Attention,
        table: torch.Tensor,
        positions: Sequence[int] | torch.Tensor,
        completed: list[tuple[int, int]] | None,
        watch: Watch | None = None,
    ) -> None:
        """
        Args:
            attention: shared state.
            table: page table of the rows, ``[rows, max_pages]``.
            positions: of the rows' current tokens.
            completed: (page, position of its first token) of rows whose page fills in this step; None: found
                out on the device, so that nothing here depends on what the host knows.
            watch: sees what is selected.
        """
        self.attention, self.watch = attention, watch
        block = attention.cache.block
        position = torch.as_tensor(positions, dtype=torch.int64, device=table.device)
        self.cos, self.sin = attention.rope.at(position)
        self.view = StepView(position, position + 1, table, block)
        self.blocks = position // block + 1  # [rows]
        self.offsets = position % block
        self.pages = table.gather(1, (self.blocks - 1).unsqueeze(1)).squeeze(1)
        self.tails = self.offsets + 1
        self.full: FullPages | CurrentPages
        if completed is None:
            self.full = CurrentPages(self.pages, position, block, attention.rope)
        else:
            pages, first = [page for page, _ in completed], [first for _, first in completed]
            self.full = FullPages(attention, pages, first)
        self.heads = attention.cache.kv[0].shape[1]
        self.identity = table.unsqueeze(1).expand(-1, self.heads, -1)
        self.all_blocks = self.blocks.unsqueeze(1).expand(-1, self.heads)
        self.counts: list[torch.Tensor] = []
        """Blocks read by each row and KV head of this rank, of each layer so far, ``[rows, kv_heads]``."""

    def attend(
        self, layer: int, q_nope: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        attention, spec = self.attention, self.attention.plan.layers[layer]
        kv, selector = attention.cache.kv[layer], attention.selectors[layer]
        q = rotate_append(q_nope, k, v, self.cos, self.sin, kv, self.pages, self.offsets)
        summary = attention.cache.summary[layer]
        if isinstance(self.full, CurrentPages):
            if selector is not None and summary is not None:
                selector.fill(kv, summary, self.full)
        else:  # one by one: rows that fill a page together share no product
            for index in range(len(self.full.pages)):
                self.full.summarise(layer, slice(index, index + 1))
        if selector is None or spec.blocks is None:
            page_ids, counts = self.identity, self.all_blocks
        else:
            view = self.view
            scores = selector.scores(Query(q_nope, q, kv, summary, scale), view)
            page_ids, counts = select(
                scores, view.page_table, view.lengths, view.block, spec.blocks, spec.sink, spec.threshold
            )
        self.counts.append(counts)
        if self.watch is not None:
            self.watch.note(page_ids, counts)
        return attend(q, kv, page_ids, counts, self.tails, scale)

    def tokens_read(self) -> torch.Tensor:
        """KV tokens read by each row in each layer, summed over the KV heads of all ranks: counted from the
        selections, ``[rows, layers]``."""
        missing = (self.view.block - self.tails) * self.heads
        blocks = torch.stack(self.counts, dim=1).sum(2)  # [rows, layers]
        return self.attention.group.total(blocks * self.view.block - missing.unsqueeze(1))
