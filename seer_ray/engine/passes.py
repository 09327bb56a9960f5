"""The two forward passes of an engine as the layers see them: prompt chunks, and a decode step."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from seer_ray.engine.cache import PagedCache
from seer_ray.engine.watch import Watch
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.upload import upload
from seer_ray.models.group import ALONE, Group
from seer_ray.models.mixers import MIXERS
from seer_ray.models.plan import LayerPlan
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import CurrentPages, Selector, StepView


class Mixer(Protocol):
    """How one layer mixes tokens in either pass, ``q, k, v [tokens, heads, head_dim]`` before rotation."""

    def prefill(
        self, step: PrefillPass, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Keeps what later tokens need of these and mixes: ``[tokens, q_heads, head_dim]``."""
        ...

    def decode(
        self, step: DecodePass, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The same for one token of each row, and adds what each row reads to ``step.counts``."""
        ...


@dataclass(frozen=True)
class Decoder:
    """A model's layers as all passes share them: cache, rotary tables, plan, selectors, and a mixer each."""

    cache: PagedCache
    rope: RopeTable
    plan: LayerPlan
    selectors: list[Selector | None]
    group: Group = ALONE
    """Ranks, each with KV heads of its own."""

    @cached_property
    def mixers(self) -> list[Mixer]:
        """That of each layer, as the plan names it."""
        kinds = [pkgutil.resolve_name(MIXERS[spec.mixer].implementation) for spec in self.plan.layers]
        return [kind(self, layer) for layer, kind in enumerate(kinds)]


class FullPages:
    """Pages that this pass fills, to be summarised once their last token is written."""

    def __init__(self, decoder: Decoder, pages: list[int], first: list[int]) -> None:
        device = decoder.cache.table.device
        self.pages, self.first = upload(pages, device), upload(first, device)
        position = self.first.unsqueeze(1) + torch.arange(decoder.cache.block, device=device)
        self.cos, self.sin = decoder.rope.at(position)


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

    def __init__(self, decoder: Decoder, chunks: list[tuple[list[int], int, int]]) -> None:
        """``chunks``: (pages of the sequence, start, end) each."""
        self.decoder = decoder
        cache, device = decoder.cache, decoder.cache.table.device
        self.chunks = Chunks.pack(chunks, cache.block, device)
        tokens = [(index, at) for index, (_, start, end) in enumerate(chunks) for at in range(start, end)]
        self.chunk, self.position = upload(tokens, device).unbind(1)
        position = self.position
        self.cos, self.sin = decoder.rope.at(position)
        self.offsets = position % cache.block
        self.pages = self.chunks.table[self.chunk, position // cache.block]
        filled = [
            (pages[index], index * cache.block)
            for pages, start, end in chunks
            for index in range(start // cache.block, end // cache.block)
        ]
        self.full = FullPages(decoder, [page for page, _ in filled], [first for _, first in filled])

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        return self.decoder.mixers[layer].prefill(self, q, k, v, scale)

    @cached_property
    def view(self) -> StepView:
        """The tokens as rows of a step."""
        table = self.chunks.table[self.chunk]
        return StepView(self.position, self.position + 1, table, self.decoder.cache.block)

    @cached_property
    def tiles(self) -> Tiles:
        """What shares a selection."""
        return Tiles(self.chunks)


class DecodePass:
    """One token of each row. Padding rows stand at position 0 of the dummy page."""

    def __init__(
        self,
        decoder: Decoder,
        table: torch.Tensor,
        positions: Sequence[int] | torch.Tensor,
        completed: list[tuple[int, int]] | None,
        watch: Watch | None = None,
    ) -> None:
        """
        Args:
            decoder: shared state.
            table: page table of the rows, ``[rows, max_pages]``.
            positions: of the rows' current tokens.
            completed: (page, position of its first token) of rows whose page fills in this step; None: found
                out on the device, so that nothing here depends on what the host knows.
            watch: sees what is selected.
        """
        self.decoder, self.watch = decoder, watch
        block = decoder.cache.block
        position = torch.as_tensor(positions, dtype=torch.int64, device=table.device)
        self.cos, self.sin = decoder.rope.at(position)
        self.view = StepView(position, position + 1, table, block)
        self.blocks = position // block + 1  # [rows]
        self.offsets = position % block
        self.pages = table.gather(1, (self.blocks - 1).unsqueeze(1)).squeeze(1)
        self.tails = self.offsets + 1
        self.full: FullPages | CurrentPages
        if completed is None:
            self.full = CurrentPages(self.pages, position, block, decoder.rope)
        else:
            pages, first = [page for page, _ in completed], [first for _, first in completed]
            self.full = FullPages(decoder, pages, first)
        self.heads = decoder.cache.kv[0].shape[1]
        self.identity = table.unsqueeze(1).expand(-1, self.heads, -1)
        self.all_blocks = self.blocks.unsqueeze(1).expand(-1, self.heads)
        self.counts: list[torch.Tensor] = []
        """Blocks read by each row and KV head of this rank, of each layer so far, ``[rows, kv_heads]``."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        return self.decoder.mixers[layer].decode(self, q, k, v, scale)

    def tokens_read(self) -> torch.Tensor:
        """KV tokens read by each row in each layer, summed over the KV heads of all ranks: counted from the
        selections, ``[rows, layers]``."""
        missing = (self.view.block - self.tails) * self.heads
        blocks = torch.stack(self.counts, dim=1).sum(2)  # [rows, layers]
        return self.decoder.group.total(blocks * self.view.block - missing.unsqueeze(1))
