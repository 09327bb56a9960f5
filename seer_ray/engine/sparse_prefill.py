"""Prompts whose blocks of rows read the blocks of keys that a prefill gate picks (arXiv 2410.13276)."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import torch

from seer_ray.kernels.blocks import Amount
from seer_ray.kernels.chunks import Chunks, Tile
from seer_ray.kernels.limits import Limits
from seer_ray.kernels.prefill import prefill
from seer_ray.kernels.quantise import KV
from seer_ray.kernels.rotary import unrotate
from seer_ray.kernels.select import select
from seer_ray.models.plan import PrefillPlan
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.selectors.base import FullKeys


class SparseRows(NamedTuple):
    """Blocks of a prompt, ``first`` to before ``end``, whose rows read a selection; all others read all."""

    first: int
    end: int
    blocks: int
    """Of the whole prompt."""


def sparse_rows(
    plan: PrefillPlan | None, prompt: int, document: tuple[int, int] | None, block: int
) -> SparseRows | None:
    """What is sparse of a prompt of so many tokens, whatever chunks it is computed in; None: nothing.

    Rows are dense that hold a token outside of the document, those of the last blocks, and those that have no
    more blocks before them than a density has every head read.

    Args:
        plan: of the engine; None: prompts are dense.
        prompt: tokens.
        document: its tokens that may be read sparsely; None: all.
        block: tokens a block.
    """
    if plan is None or plan.amount.everything:
        return None
    blocks = -(-prompt // block)
    first = 0 if plan.amount.density is None else plan.count(blocks)
    # The last token is a decode step's, so its block is not whole.
    end = min(blocks - plan.last_blocks, (prompt - 1) // block)
    if document is not None:
        first, end = max(first, -(-document[0] // block)), min(end, document[1] // block)
    return SparseRows(first, end, blocks) if first < end else None


def amount_here(plan: PrefillPlan, layer: int, gate: PrefillGate, rank: int) -> Amount:
    """What the heads that decide in a layer read on this rank.

    Args:
        plan: of the engine.
        layer: that has the gate.
        gate: with the query heads of this rank.
        rank: of tensor parallelism.
    """
    if layer not in plan.amounts:
        return plan.amount
    heads = plan.amounts[layer].heads[rank * gate.num_query_heads :][: gate.num_query_heads]
    if plan.shared:
        starts = range(0, len(heads), gate.group)
        heads = tuple(sum(heads[at : at + gate.group]) / gate.group for at in starts)
    return replace(plan.amount, heads=heads)


class SparsePrefill:
    """How one layer reads prompts.

    Args:
        gate: of the layer.
        plan: how much is read.
        amount: of this layer and its query heads here.
        keys: what the gate keeps of each full page, ``[pages, kv_heads, key_width]``.
    """

    def __init__(self, gate: PrefillGate, plan: PrefillPlan, amount: Amount, keys: torch.Tensor) -> None:
        self.gate, self.plan, self.amount, self.keys = gate, plan, amount, keys
        self._known: dict[int, Limits] = {}

    def summarise(self, pages: torch.Tensor, full: FullKeys) -> None:
        """Keeps what is read of pages that have just been filled."""
        k_nope = unrotate(full.k.transpose(1, 2), full.cos, full.sin)
        self.keys[pages] = self.gate.compress_keys(k_nope, full.first).to(self.keys.dtype)

    def choose(
        self, q_nope: torch.Tensor, chunks: Chunks, rows: list[SparseRows]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pages of every tile and head, dense rows included, as ``kernels.prefill`` takes them.

        Args:
            q_nope: of the packed tokens, before rotation, ``[tokens, q_heads, head_dim]``.
            chunks: what they are.
            rows: of the prompt of each chunk.
        """
        shared = self.plan.shared
        heads = self.gate.num_kv_heads if shared else self.gate.num_query_heads
        width, device = chunks.table.shape[1], q_nope.device
        ids = torch.zeros(len(chunks.tiles), heads, width, dtype=torch.int64, device=device)
        counts = torch.zeros(len(chunks.tiles), heads, dtype=torch.int64, device=device)
        index = 0
        for (chunk, sparse), group in groupby(chunks.tiles, lambda tile: (tile.chunk, _within(tile, rows))):
            tiles = list(group)
            seen = tiles[-1].block + 1
            pages = chunks.table[chunk, :seen]
            own = torch.tensor([tile.block for tile in tiles], device=device)
            place = slice(index, index + len(tiles))
            if sparse:
                chosen = self._chosen(q_nope, tiles, pages, own, rows[chunk].blocks, chunks.block)
                ids[place, :, : chosen[0].shape[2]], counts[place] = chosen
            else:
                there = torch.arange(seen, device=device) <= own.unsqueeze(1)
                ids[place, :, :seen] = torch.where(there, pages, 0).unsqueeze(1)
                counts[place] = own.unsqueeze(1) + 1
            index += len(tiles)
        return ids, counts

    def _chosen(
        self,
        q_nope: torch.Tensor,
        tiles: list[Tile],
        pages: torch.Tensor,
        own: torch.Tensor,
        blocks: int,
        block: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of neighbouring tiles that are whole blocks, as ``choose``: pages up to the most that one reads."""
        gate, first = self.gate, tiles[0].first
        tokens = q_nope[first : first + len(tiles) * block]
        queries = gate.gate_queries(tokens.unflatten(0, (len(tiles), block)), own * block)
        logits = gate.logits(queries, self.keys[pages])
        if self.plan.shared:
            logits = logits.unflatten(0, (gate.num_kv_heads, gate.group)).amax(1)
        table, lengths = pages.expand(len(tiles), -1), (own + 1) * block
        limits = self._limits(len(logits), blocks)
        return select(logits.transpose(0, 1), table, lengths, block, limits)

    def _limits(self, heads: int, blocks: int) -> Limits:
        """Of a prompt of so many blocks; made once."""
        if blocks not in self._known:
            amount = self.amount
            counts = amount.counts(blocks, self.plan.sink)
            self._known[blocks] = Limits.of(
                heads,
                counts if amount.heads else counts[0],
                self.plan.sink,
                threshold=amount.threshold,
                mass=amount.mass,
                device=self.keys.device,
            )
        return self._known[blocks]


def attend_sparsely(
    sparse: SparsePrefill,
    q_nope: torch.Tensor,
    rotated: torch.Tensor,
    kv: KV,
    chunks: Chunks,
    rows: list[SparseRows | None],
    scale: float,
    sinks: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of packed chunks of which some are of prompts with sparse rows.

    The others are computed as if they were alone: a chunk's mates do not change how it is computed.

    Returns:
        ``[tokens, q_heads, head_dim]``, and the pairs of a token and a key that were read, over all query
        heads, counted from the selection.
    """
    lengths = [end - start for start, end in chunks.spans]
    out, read = torch.empty_like(rotated), rotated.new_zeros((), dtype=torch.int64)
    token_chunk = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths)).to(rotated.device)
    for chosen in (True, False):
        index = [i for i, of in enumerate(rows) if (of is not None) is chosen]
        if not index:
            continue
        part = Chunks(tuple(chunks.spans[i] for i in index), chunks.table[index], chunks.block)
        whole = len(index) == len(rows)
        here = torch.isin(token_chunk, torch.tensor(index, device=rotated.device))
        q, turned = (q_nope, rotated) if whole else (q_nope[here], rotated[here])
        ids = counts = None
        if chosen:
            ids, counts = sparse.choose(q, part, [of for i in index if (of := rows[i]) is not None])
            read = read + _pairs(part, counts, rotated.shape[1])
        else:
            read = read + rotated.shape[1] * causal_pairs(part.spans)
        found = prefill(turned, kv, part, scale, ids, counts, sinks=sinks)
        if whole:
            return found, read
        out[here] = found
    return out, read


def causal_pairs(spans: tuple[tuple[int, int], ...]) -> int:
    """Pairs of a token of chunks and a key at or before it: what dense attention reads."""
    return sum((end * (end + 1) - start * (start + 1)) // 2 for start, end in spans)


def _pairs(chunks: Chunks, counts: torch.Tensor, q_heads: int) -> torch.Tensor:
    """Pairs of tokens and keys in the pages that are read, summed over query heads."""
    tiles, block = chunks.tiles, chunks.block
    tokens = torch.tensor([tile.end - tile.start for tile in tiles], device=counts.device)
    own = torch.tensor(
        [causal_pairs(((t.start % block, t.start % block + t.end - t.start),)) for t in tiles],
        device=counts.device,
    )
    each = (counts - 1) * (block * tokens).unsqueeze(1) + own.unsqueeze(1)
    return each.sum() * (q_heads // counts.shape[1])


def _within(tile: Tile, rows: list[SparseRows]) -> bool:
    """Whether its rows are sparse; they are then a whole block."""
    of = rows[tile.chunk]
    return of.first <= tile.block < of.end
