"""The two forward passes of an engine as the layers see them: prompt chunks, and a decode step."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch

from seer_ray.engine.cache import PagedCache
from seer_ray.engine.pages import Keeps
from seer_ray.engine.sparse_prefill import SparseRows
from seer_ray.engine.watch import Selections
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.spans import Spans
from seer_ray.kernels.upload import upload
from seer_ray.models.group import ALONE, Group
from seer_ray.models.mixers import MIXERS
from seer_ray.models.plan import LayerPlan
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.recurrence import Run
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention
from seer_ray.selectors.base import CurrentPages, Selector, StepView

Rotary = tuple[torch.Tensor, torch.Tensor]
"""cos and sin of some positions."""


class Mixer(Protocol):
    """The attention of one layer, in either pass."""

    def prefill(self, step: PrefillPass, asked: Attention) -> torch.Tensor:
        """Keeps what later tokens need of these and attends: ``[tokens, q_heads, head_dim]``."""
        ...

    def decode(self, step: DecodePass, asked: Attention) -> torch.Tensor:
        """The same for one token of each row, and says what each row reads."""
        ...


@dataclass(frozen=True)
class Decoder:
    """A model's layers as all passes share them: cache, rotary tables, plan, selectors, and a mixer each."""

    cache: PagedCache
    ropes: list[RopeTable]
    """That of each layer; layers share them."""
    plan: LayerPlan
    selectors: list[Selector | None]
    prefill_gates: Sequence[PrefillGate | None] = ()
    """Of each layer, where prompts are read sparsely; empty: nowhere."""
    group: Group = ALONE
    """Ranks, each with KV heads of its own."""

    @cached_property
    def mixers(self) -> list[Mixer | None]:
        """The attention of each layer, as the plan names it; None: it has none."""
        names = [MIXERS[spec.mixer].attention for spec in self.plan.layers]
        kinds = [pkgutil.resolve_name(name) if name is not None else None for name in names]
        return [kind(self, layer) if kind is not None else None for layer, kind in enumerate(kinds)]


class FullPages:
    """Pages that this pass fills, to be summarised once their last token is written."""

    def __init__(self, decoder: Decoder, pages: list[int], first: list[int]) -> None:
        self.device, self.block = decoder.cache.tables[0].device, decoder.cache.block
        self.pages, self.first = upload(pages, self.device), upload(first, self.device)
        self._tables: dict[int, Rotary] = {}

    def tables(self, rope: RopeTable) -> Rotary:
        """Its rows of all tokens of the pages, ``[pages, block, head_dim]``."""
        if id(rope) not in self._tables:
            slots = self.first.unsqueeze(1) + torch.arange(self.block, device=self.device)
            self._tables[id(rope)] = rope.at(slots)
        return self._tables[id(rope)]


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


class Part(NamedTuple):
    """Tokens ``start`` to ``end`` of a sequence."""

    pages: Sequence[Sequence[int]]
    """Of the sequence, by group."""
    start: int
    end: int
    slot: int = 0
    """Of its state."""
    sparse: SparseRows | None = None
    """Of its prompt."""


class ChunkPages:
    """The chunks of a pass in the pages of one group."""

    def __init__(self, parts: list[Part], group: int, chunk: torch.Tensor, pass_: PrefillPass) -> None:
        block, device = pass_.decoder.cache.block, pass_.position.device
        packed = [(part.pages[group], part.start, part.end) for part in parts]
        self.chunks = Chunks.pack(packed, block, device)
        self._chunk, self._position = chunk, pass_.position
        self.pages = self.chunks.table[chunk, pass_.position // block]
        """Page of each token, ``[tokens]``."""

    @cached_property
    def view(self) -> StepView:
        """The tokens as rows of a step."""
        table = self.chunks.table[self._chunk]
        return StepView(self._position, self._position + 1, table, self.chunks.block)

    @cached_property
    def tiles(self) -> Tiles:
        """What shares a selection."""
        return Tiles(self.chunks)


class PrefillPass:
    """Chunks of one or several prompts, packed without padding; each attends to its own past."""

    normalises = True
    """See ``models.step``."""

    def __init__(self, decoder: Decoder, parts: list[Part], device: torch.device) -> None:
        self.decoder, self._parts = decoder, parts
        block = decoder.cache.block
        tokens = [(index, at) for index, part in enumerate(parts) for at in range(part.start, part.end)]
        chunk, self.position = upload(tokens, device).unbind(1)
        self.offsets = self.position % block
        self.groups = [ChunkPages(parts, group, chunk, self) for group in range(len(decoder.cache.groups))]
        self.spans = tuple((part.start, part.end) for part in parts)
        self.sparse = [part.sparse for part in parts]
        self.read: list[torch.Tensor] = []
        """Pairs of a token and a key that layers with sparse rows read, over their query heads."""
        self._rotary: dict[int, Rotary] = {}

    def attend(self, layer: int, asked: Attention) -> torch.Tensor:
        """See ``models.step``."""
        mixer = self.decoder.mixers[layer]
        assert mixer is not None
        return mixer.prefill(self, asked)

    def recur(self, layer: int, hidden: torch.Tensor, run: Run) -> torch.Tensor:
        """See ``models.step``."""
        states, out = self.decoder.cache.states, []
        assert states is not None
        for part, tokens in zip(
            self._parts, hidden.split([p.end - p.start for p in self._parts]), strict=True
        ):
            slot = torch.tensor([part.slot], device=hidden.device)
            out.append(run(tokens.unsqueeze(0), states.held(layer, slot)).squeeze(0))
        return torch.cat(out)

    def rotary(self, rope: RopeTable) -> Rotary:
        """Of the tokens, ``[tokens, head_dim]``."""
        if id(rope) not in self._rotary:
            self._rotary[id(rope)] = rope.at(self.position)
        return self._rotary[id(rope)]

    @cached_property
    def full(self) -> FullPages:
        """Of the first group, the one that layers with a selector are in."""
        block = self.decoder.cache.block
        filled = [
            (part.pages[0][index], index * block)
            for part in self._parts
            for index in range(part.start // block, part.end // block)
        ]
        return FullPages(self.decoder, [page for page, _ in filled], [first for _, first in filled])


class RowPages:
    """The rows of a decode step in the pages of one group."""

    def __init__(
        self, table: torch.Tensor, position: torch.Tensor, block: int, heads: int, window: int | None
    ) -> None:
        self.view = StepView(position, position + 1, table, block)
        last = position // block
        self.pages = table.gather(1, last.unsqueeze(1)).squeeze(1)
        """Page of each row's token, ``[rows]``."""
        self.skips: torch.Tensor | None = None
        """See ``kernels.attend``."""
        self.window: int | None = None
        """Likewise, where rows have several queries."""
        if window is None:
            listed, counts = table, last + 1
        else:
            start = (position - window + 1).clamp(min=0)
            first = start // block
            width = Keeps(window).pages(table.shape[1] * block, block)
            index = first.unsqueeze(1) + torch.arange(width, device=table.device)
            listed = table.gather(1, index.clamp(max=table.shape[1] - 1))
            counts, self.skips = last - first + 1, start % block
        self.ids = listed.unsqueeze(1).expand(-1, heads, -1)
        """All that may be read, as a selection: ``[rows, kv_heads, k]``."""
        self.counts = counts.unsqueeze(1).expand(-1, heads)


class DecodePass:
    """One token of each row. Padding rows stand at position 0 of the dummy page."""

    normalises = True
    """See ``models.step``."""
    spans: Spans | None = None
    """Of rows with several queries."""

    def __init__(
        self,
        decoder: Decoder,
        tables: Sequence[torch.Tensor],
        positions: Sequence[int] | torch.Tensor,
        completed: list[tuple[int, int]] | None,
        selections: Selections | None = None,
        slots: torch.Tensor | None = None,
        dense: bool = False,
    ) -> None:
        """
        Args:
            decoder: shared state.
            tables: page table of the rows for each group, ``[rows, max_pages]``.
            positions: of the rows' current tokens.
            completed: (page, position of its first token) of rows whose page fills in this step, in the first
                group; None: found out on the device, so that nothing here depends on what the host knows.
            selections: keeps what every layer reads.
            slots: of the rows' states, ``[rows]``, where there are any.
            dense: every layer reads everything, whatever its selector; that keeps its summaries all the same.
        """
        self.decoder, self._selections, self._slots, self.dense = decoder, selections, slots, dense
        cache, block = decoder.cache, decoder.cache.block
        device = tables[0].device if tables else slots.device if slots is not None else None
        position = torch.as_tensor(positions, dtype=torch.int64, device=device)
        self.position = position
        self.offsets = position % block
        self.tails = self.offsets + 1
        self.groups: Sequence[RowPages] = [
            RowPages(table, position, block, cache.heads, group.window)
            for table, group in zip(tables, cache.groups, strict=True)
        ]
        self._completed = completed
        self._rotary: dict[int, Rotary] = {}
        self._read: dict[int, torch.Tensor] = {}

    @cached_property
    def full(self) -> FullPages | CurrentPages:
        """Pages to be summarised, of the first group, the one that layers with a selector are in."""
        if self._completed is None:
            return CurrentPages(self.groups[0].pages, self.position, self.decoder.cache.block)
        return FullPages(
            self.decoder, [page for page, _ in self._completed], [at for _, at in self._completed]
        )

    @property
    def view(self) -> StepView:
        """What selectors look at."""
        return self.groups[0].view

    def rotary(self, rope: RopeTable) -> Rotary:
        """Of the rows, ``[rows, head_dim]``."""
        if id(rope) not in self._rotary:
            self._rotary[id(rope)] = rope.at(self.position)
        return self._rotary[id(rope)]

    def attend(self, layer: int, asked: Attention) -> torch.Tensor:
        """See ``models.step``."""
        mixer = self.decoder.mixers[layer]
        assert mixer is not None
        return mixer.decode(self, asked)

    def recur(self, layer: int, hidden: torch.Tensor, run: Run) -> torch.Tensor:
        """See ``models.step``."""
        states = self.decoder.cache.states
        assert states is not None and self._slots is not None
        return run(hidden.unsqueeze(1), states.held(layer, self._slots)).squeeze(1)

    def note(self, layer: int, page_ids: torch.Tensor, counts: torch.Tensor) -> None:
        """What a layer reads, see ``kernels.attend``."""
        self._read[layer] = counts
        if self._selections is not None:
            group = self.decoder.cache.group_of[layer]
            assert group is not None
            self._selections.note(layer, group, page_ids, counts)

    def tokens_read(self) -> torch.Tensor:
        """KV tokens read by each row in each layer, summed over the KV heads of all ranks: counted from the
        selections, ``[rows, layers]``; 0 where a layer has no attention."""
        cache, heads = self.decoder.cache, self.decoder.cache.heads
        missing = [cache.block - self.tails + (g.skips if g.skips is not None else 0) for g in self.groups]
        placed = [(layer, group) for layer, group in enumerate(cache.group_of) if group is not None]
        if not placed:
            return self.position.new_zeros(len(self.position), len(cache.group_of))
        # Few operations whatever the number of layers: this is a part of every step.
        pages = torch.stack([self._read[layer] for layer, _ in placed], dim=1).sum(2)
        read = pages * cache.block - torch.stack([missing[group] for _, group in placed], dim=1) * heads
        if len(placed) < len(cache.group_of):
            none = torch.zeros_like(self.position)
            column = {layer: read[:, at] for at, (layer, _) in enumerate(placed)}
            read = torch.stack([column.get(layer, none) for layer in range(len(cache.group_of))], dim=1)
        return self.decoder.group.total(read)
