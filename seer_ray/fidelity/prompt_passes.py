"""One document as a prompt through the frozen model, its blocks of rows reading what a contender chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from seer_ray.fidelity.passes import Pages
from seer_ray.fidelity.quality import BEST, ORACLE
from seer_ray.kernels.block_target import BlockMaps, attend_with_blocks
from seer_ray.kernels.blocks import Amount, listed, select_blocks
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.prefill import prefill
from seer_ray.models.allocation import Allocation
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.recurrence import Run, recur_apart
from seer_ray.models.step import Attention

WINDOW = "window"
REFERENCES = (ORACLE, BEST, WINDOW)
"""Beside gates: the largest probability of a pair of blocks, their mass, and the most recent blocks (with the
first: A-shape)."""
SHARED = "shared"
"""The prefill gates, with one decision for the query heads of a KV head (``selector.prefill.shared``)."""
ALLOCATED = "allocated"
"""The prefill gates, whose layers and query heads share a density (``selector.prefill.allocation``)."""
LAST_BLOCKS = 2

Gate = PrefillGate | AttnGate
"""A decode gate stands for its mean over the rows of a block."""


class Contender:
    """A way to choose blocks, in one layer."""

    def __init__(self, name: str, gate: Gate | None, block: int) -> None:
        self.name, self.gate, self.block = name, gate, block

    @property
    def wants_maps(self) -> bool:
        return self.gate is None and self.name != WINDOW

    def scores(self, asked: Attention, maps: BlockMaps | None) -> Tensor:
        """``[q_heads, q_blocks, k_blocks]``, fp32; entries of later keys mean nothing."""
        gate, heads = self.gate, asked.q.shape[1]
        blocks = -(-len(asked.q) // self.block)
        if gate is None and self.name == WINDOW:
            return torch.arange(blocks, device=asked.q.device).float().expand(heads, blocks, blocks)
        if gate is None:
            assert maps is not None
            return maps.mass if self.name == BEST else maps.largest
        if isinstance(gate, PrefillGate):
            scores = gate.score(asked.q, asked.k)
            if self.name != SHARED:
                return scores
            return scores.unflatten(0, (-1, gate.group)).amax(1).repeat_interleave(gate.group, 0)
        return averaged(gate, asked, blocks)


def averaged(gate: AttnGate, asked: Attention, blocks: int) -> Tensor:
    """The mean over the rows of a block of what a decode gate says of blocks that are complete; the last
    block, if it is open, has no score."""
    block, tokens = gate.block_size, len(asked.q)
    position = torch.arange(tokens, device=asked.q.device)
    queries = gate.gate_query(asked.q, position)
    own = position // block
    mean = queries.new_zeros(blocks, *queries.shape[1:]).index_add_(0, own, queries)
    mean /= torch.bincount(own, minlength=blocks).view(-1, 1, 1)
    keys = gate.compress_keys(asked.k.unsqueeze(0))[0]
    scores = torch.einsum("nhd,mhd->hnm", mean, keys)
    scores = torch.nn.functional.pad(scores, (0, blocks - len(keys)), value=float("-inf"))
    return scores.repeat_interleave(asked.q.shape[1] // scores.shape[0], 0)


class PromptPass:
    """A ``Step``: a document as a prompt. ``look`` may see every layer beside dense attention; with a
    contender for each layer, those read what it chooses."""

    def __init__(
        self,
        pages: Pages,
        look: Callable[[int, Attention, BlockMaps], None] | None = None,
        contenders: Sequence[Contender | None] = (),
        amount: Amount | None = None,
        last_blocks: int = LAST_BLOCKS,
        amounts: Mapping[int, Amount] = {},
    ) -> None:
        self.pages, self.position = pages, pages.positions
        self.look, self.contenders, self.amount, self.last_blocks = look, contenders, amount, last_blocks
        self.amounts = amounts

    def recur(self, layer: int, hidden: Tensor, run: Run) -> Tensor:
        """See ``models.step``."""
        return recur_apart(hidden, [self.pages.length], run)

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``."""
        pages = self.pages
        rotated = pages.write(layer, asked)
        contender = self.contenders[layer] if self.contenders else None
        if pages.reach is not None or (self.look is None and contender is None):
            return pages.dense(rotated, asked.scale, asked.sinks)
        maps = None
        if self.look is not None or (contender is not None and contender.wants_maps):
            k = pages.kv[:, :, 0].transpose(1, 2).flatten(0, 1)[: pages.length]
            v = pages.kv[:, :, 1].transpose(1, 2).flatten(0, 1)[: pages.length]
            out, maps = attend_with_blocks(rotated, k, v, pages.block, asked.scale, asked.sinks)
        if self.look is not None:
            assert maps is not None
            self.look(layer, asked, maps)
            return out
        assert contender is not None and self.amount is not None
        scores = contender.scores(asked, maps)
        amount = self.amounts.get(layer, self.amount)
        return read_chosen(pages, rotated, chosen(scores, amount, pages.sink, self.last_blocks), asked)


def read_chosen(pages: Pages, rotated: Tensor, keep: Tensor, asked: Attention) -> Tensor:
    """Attention of a whole prompt to chosen blocks, ``[tokens, q_heads, head_dim]``.

    Args:
        pages: with the layer's keys.
        rotated: queries, ``[tokens, q_heads, head_dim]``.
        keep: see ``chosen``.
        asked: what the layer asked for.
    """
    chunk = Chunks(((0, pages.length),), pages.table.unsqueeze(0), pages.block)
    selection = listed(keep, pages.table)
    return prefill(rotated, pages.kv, chunk, asked.scale, *selection, sinks=asked.sinks)


def chosen(scores: Tensor, amount: Amount, sink: bool, last_blocks: int) -> Tensor:
    """What a whole prompt reads, ``[q_heads, q_blocks, k_blocks]`` bool; its last rows everything."""
    blocks = scores.shape[2]
    own = torch.arange(blocks, device=scores.device)
    keep = select_blocks(scores.float(), own, blocks, amount, sink)
    late = (own >= blocks - last_blocks).unsqueeze(1) & (own <= own.unsqueeze(1))
    return keep | late


def shared_amounts(density: float, allocation: Allocation | None) -> dict[int, Amount]:
    """Of layers whose heads share a density; none, without an allocation."""
    own = {} if allocation is None else allocation.densities(density)
    return {layer: Amount(density=density, heads=heads) for layer, heads in own.items()}


def contenders_of(
    gates: Mapping[str, Sequence[Gate | None]], references: Sequence[str], shape: AttentionShape, block: int
) -> dict[str, list[Contender | None]]:
    """Of each label, one a layer: a gate set's where it has a gate, and others where blocks are selected.

    Args:
        gates: sets by label; that of ``SHARED`` decides for the query heads of a KV head together.
        references: of ``REFERENCES``.
        shape: of the model's attention.
        block: tokens a block.
    """
    found: dict[str, list[Contender | None]] = {
        label: [None if gate is None else Contender(label, gate, block) for gate in of_layers]
        for label, of_layers in gates.items()
    }
    selecting = shape.selecting()
    for name in references:
        found[name] = [
            Contender(name, None, block) if layer in selecting else None for layer in range(shape.layers)
        ]
    return found
