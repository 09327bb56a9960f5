"""One document through the frozen model: every token is a decode step whose past is the document itself.

The rows of a pass are the document's tokens. They share one set of pages, so the selectors,
``kernels.select`` and ``kernels.attend`` see what they see in a batch of decode steps: what is measured is
the code that decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from seer_ray.kernels.append import rotate_append
from seer_ray.kernels.attend import attend
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.limits import Limits
from seer_ray.kernels.prefill import prefill
from seer_ray.kernels.select import select
from seer_ray.models.limits import Limit
from seer_ray.models.patch import AttentionShape
from seer_ray.models.recurrence import Run, recur_apart
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention
from seer_ray.selectors.base import FullKeys, Query, Selector, StepView
from seer_ray.selectors.oracle import Oracle

ROWS = 256
"""Decode steps that are computed together, at most."""
LOGITS = 2**24
"""Attention logits that are held at a time, at most: 64 MiB in fp32."""


class Pages:
    """The keys and values of a document in one layer, page ``i`` holding block ``i``. Layers take turns."""

    def __init__(
        self,
        shape: AttentionShape,
        ropes: Sequence[RopeTable],
        length: int,
        block: int,
        like: Tensor,
        sink: bool = True,
    ) -> None:
        """
        Args:
            shape: of the model's attention.
            ropes: of each layer.
            length: of the document.
            block: tokens a page.
            like: gives dtype and device.
            sink: whether selections always hold the first block.
        """
        self.shape, self.length, self.block, self.sink = shape, length, block, sink
        self.count = -(-length // block)
        self.kv = like.new_zeros(self.count, shape.kv_heads, 2, block, shape.head_dim)
        self.table = torch.arange(self.count, device=like.device)
        self.positions = torch.arange(length, device=like.device)
        self.ropes = ropes
        self._rotary: dict[int, tuple[Tensor, Tensor]] = {}
        self._limits: dict[tuple[Limit, tuple[float, ...] | None], Limits] = {}

    def write(self, layer: int, asked: Attention) -> Tensor:
        """All tokens of a layer, whose turn it is from now on; the rotated queries."""
        pages, offsets = self.positions // self.block, self.positions % self.block
        rope, self.reach = self.ropes[layer], self.shape.reach(layer)
        if id(rope) not in self._rotary:
            self._rotary[id(rope)] = rope.at(self.positions)
        self.cos, self.sin = self._rotary[id(rope)]
        return rotate_append(asked.q, asked.k, asked.v, self.cos, self.sin, self.kv, pages, offsets)

    def summarise(self, selector: Selector) -> Tensor | None:
        """What the selector keeps of the complete pages, ``[pages, kv_heads, width]``."""
        if not selector.summary_width:
            return None
        full = self.length // self.block
        summary = self.kv.new_zeros(self.count, self.shape.kv_heads, selector.summary_width)
        if not full:
            return summary
        cos, sin = (x[: full * self.block].view(full, self.block, -1) for x in (self.cos, self.sin))
        keys = FullKeys(self.kv[:full, :, 0], cos, sin, self.table[:full] * self.block)
        summary[:full] = selector.summarise(keys).to(summary.dtype)
        return summary

    def limits(self, limit: Limit, sharpness: tuple[float, ...] | None = None) -> Limits:
        """As ``select`` takes a layer's limit."""
        key = limit, sharpness
        if key not in self._limits:
            heads, device = self.shape.kv_heads, self.table.device
            self._limits[key] = limit.told(heads, self.sink, sharpness=sharpness, device=device)
        return self._limits[key]

    def view(self, rows: Tensor) -> StepView:
        """Decode steps at the positions ``rows``, which see the pages up to the last one."""
        width = int(rows[-1]) // self.block + 1
        return StepView(rows, rows + 1, self.table[:width].expand(len(rows), width), self.block)

    def dense(self, q: Tensor, scale: float, sinks: Tensor | None = None) -> Tensor:
        """Causal attention of the document's first tokens, ``q [tokens, q_heads, head_dim]``."""
        # With a mask of all rows, one of all tokens by all tokens would be needed.
        rows = len(q) if self.reach is None and sinks is None else ROWS
        spans = tuple((start, min(start + rows, len(q))) for start in range(0, len(q), rows))
        chunks = Chunks(spans, self.table.expand(len(spans), -1), self.block)
        return prefill(q, self.kv, chunks, scale, window=self.reach, sinks=sinks)


@dataclass
class Layer:
    """One layer of one pass."""

    index: int
    pages: Pages
    asked: Attention
    q: Tensor
    """Rotated, ``[tokens, q_heads, head_dim]``."""

    def dense(self) -> Tensor:
        """Its attention as the model was made, ``[tokens, q_heads, head_dim]``."""
        return self.pages.dense(self.q, self.asked.scale, self.asked.sinks)

    def chunks(self, rows: Tensor, logits: bool) -> Iterator[Tensor]:
        """``rows`` in pieces of ``ROWS``, or such that their attention logits stay below ``LOGITS``."""
        size = LOGITS // (self.q.shape[1] * self.pages.count * self.pages.block) if logits else ROWS
        yield from rows.split(max(1, min(size, ROWS)))

    def shares(self, rows: Tensor) -> Shares:
        """Attention of the steps at the positions ``rows`` (ascending), block by block; what sinks take is
        left out, as the selector ``oracle`` does."""
        pages, view = self.pages, self.pages.view(rows)
        heads, dim, width = self.pages.shape.kv_heads, self.q.shape[2], view.page_table.shape[1]
        k = self._keys[:, : width * pages.block]
        # [kv_heads, group * rows, tokens]
        grouped = self.q[rows].view(len(rows), heads, -1, dim).permute(1, 2, 0, 3).reshape(heads, -1, dim)
        logits = torch.matmul(grouped.float(), k.transpose(1, 2)).mul_(self.asked.scale)
        logits = logits.view(heads, -1, len(rows), width * pages.block)
        first = int(rows[0]) + 1  # every row sees all tokens before this one
        token = torch.arange(first, width * pages.block, device=rows.device)
        logits[..., first:].masked_fill_(token > rows.unsqueeze(1), float("-inf"))
        tiles = logits.view(*logits.shape[:3], width, pages.block)
        tile_max = tiles.amax(-1)
        peak = tile_max.amax(-1, keepdim=True)
        mass = tiles.sub_(peak.unsqueeze(-1)).exp_().sum(-1)
        total = mass.sum(-1, keepdim=True)
        log_max = (tile_max - peak - total.log()).amax(1)
        return Shares(log_max.transpose(0, 1), (mass / total).permute(2, 0, 1, 3))

    @cached_property
    def _keys(self) -> Tensor:
        """All rotated keys in fp32, ``[kv_heads, tokens, head_dim]``."""
        k = self.pages.kv[:, :, 0].transpose(0, 1)
        return k.reshape(len(k), -1, k.shape[3]).float()

    def scores(
        self, selector: Selector, rows: Tensor, summary: Tensor | None, shares: Shares | None = None
    ) -> Tensor:
        """``[rows, kv_heads, blocks]`` as in decoding. ``shares``: of these rows, where they are known."""
        if isinstance(selector, Oracle):  # the same numbers without a copy of all keys for each row
            return (shares or self.shares(rows)).log_max
        query = Query(self.asked.q[rows], self.q[rows], self.pages.kv, summary, self.asked.scale)
        return selector.scores(query, self.pages.view(rows))

    def select(
        self, scores: Tensor, rows: Tensor, limit: Limit, selector: Selector | None = None
    ) -> tuple[Tensor, Tensor]:
        """Page ids and counts, see ``kernels.select``; ``selector``: the one that gave the scores."""
        view = self.pages.view(rows)
        limits = self.pages.limits(limit, selector.sharpness if selector is not None else None)
        return select(scores, view.page_table, view.lengths, view.block, limits)


@dataclass
class Shares:
    """Softmax attention of some rows, summed up by block."""

    log_max: Tensor
    """Logarithm of the largest probability among a block's tokens and a group's heads: the scores of the
    selector ``oracle``, ``[rows, kv_heads, blocks]``."""
    mass: Tensor
    """Sum over the block's tokens, ``[rows, kv_heads, group, blocks]``; a row and head sums to 1."""


class _Pass:
    """What passes over one document share: a ``models.step.Step`` but for its attention."""

    def __init__(self, pages: Pages) -> None:
        self.pages, self.position = pages, pages.positions

    def recur(self, layer: int, hidden: Tensor, run: Run) -> Tensor:
        """See ``models.step``."""
        return recur_apart(hidden, [self.pages.length], run)


class DensePass(_Pass):
    """Attention as the model was made; ``look`` may see every layer."""

    def __init__(self, pages: Pages, look: Callable[[Layer], None] | None = None) -> None:
        super().__init__(pages)
        self.look = look

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``."""
        seen = Layer(layer, self.pages, asked, self.pages.write(layer, asked))
        if self.look is not None:
            self.look(seen)
        return seen.dense()


class SparsePass(_Pass):
    """Every token attends to the blocks that the layer's selector gives it, from the first token on."""

    def __init__(self, pages: Pages, selectors: Sequence[Selector | None], limits: Sequence[Limit]) -> None:
        """
        Args:
            pages: of the document.
            selectors: one per layer; None: dense.
            limits: of each layer.
        """
        super().__init__(pages)
        self.selectors, self.limits = selectors, limits

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``."""
        pages, selector = self.pages, self.selectors[layer]
        seen = Layer(layer, pages, asked, pages.write(layer, asked))
        limit = self.limits[layer]
        dense = pages.length
        if selector is not None:
            # All of so many blocks are read, unless a threshold or a mass says otherwise.
            limits = pages.limits(limit, selector.sharpness)
            dense = min(pages.length, (limits.whole if limits.rule == "count" else 1) * pages.block)
        out = [pages.dense(seen.q[:dense], asked.scale, asked.sinks)]
        if selector is not None and dense < pages.length:
            summary = pages.summarise(selector)
            for rows in seen.chunks(pages.positions[dense:], isinstance(selector, Oracle)):
                scores = seen.scores(selector, rows, summary)
                page_ids, counts = seen.select(scores, rows, limit, selector)
                tails = rows % pages.block + 1
                out.append(
                    attend(seen.q[rows], pages.kv, page_ids, counts, tails, asked.scale, sinks=asked.sinks)
                )
        return torch.cat(out)
