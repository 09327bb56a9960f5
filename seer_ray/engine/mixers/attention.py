"""Attention over paged K and V: to all blocks of a sequence, or to those that the layer's selector picks.

A layer with a sliding window is computed so too: no sequence is longer than the window (``max_context``).
"""

from __future__ import annotations

import torch

from seer_ray.engine.passes import DecodePass, Decoder, FullPages, PrefillPass
from seer_ray.kernels.append import rotate_append
from seer_ray.kernels.attend import attend
from seer_ray.kernels.prefill import prefill
from seer_ray.kernels.select import select
from seer_ray.selectors.base import CurrentPages, FullKeys, Query


class PagedAttention:
    """A ``Mixer``."""

    def __init__(self, decoder: Decoder, layer: int) -> None:
        self.kv, self.summary = decoder.cache.kv[layer], decoder.cache.summary[layer]
        self.spec, self.selector = decoder.plan.layers[layer], decoder.selectors[layer]
        self.sparse_prefill = decoder.plan.sparse_prefill

    def prefill(
        self, step: PrefillPass, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        kv, spec = self.kv, self.spec
        rotated = rotate_append(q, k, v, step.cos, step.sin, kv, step.pages, step.offsets)
        self._summarise(step.full)
        dense = not self.sparse_prefill or step.chunks.table.shape[1] <= (spec.blocks or 0)
        if dense or self.selector is None or spec.blocks is None:
            return prefill(rotated, kv, step.chunks, scale)
        tiles, query = step.tiles, Query(q, rotated, kv, self.summary, scale)
        scores = tiles.mean(self.selector.scores(query, step.view))
        block = step.chunks.block
        chosen = select(scores, tiles.table, tiles.lengths, block, spec.blocks, spec.sink, spec.threshold)
        return prefill(rotated, kv, step.chunks, scale, *chosen)

    def decode(
        self, step: DecodePass, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        kv, summary, selector, spec = self.kv, self.summary, self.selector, self.spec
        rotated = rotate_append(q, k, v, step.cos, step.sin, kv, step.pages, step.offsets)
        if isinstance(step.full, CurrentPages):
            if selector is not None and summary is not None:
                selector.fill(kv, summary, step.full)
        else:  # one by one: rows that fill a page together share no product
            for index in range(len(step.full.pages)):
                self._summarise(step.full, slice(index, index + 1))
        if selector is None or spec.blocks is None:
            page_ids, counts = step.identity, step.all_blocks
        else:
            view = step.view
            scores = selector.scores(Query(q, rotated, kv, summary, scale), view)
            page_ids, counts = select(
                scores, view.page_table, view.lengths, view.block, spec.blocks, spec.sink, spec.threshold
            )
        step.counts.append(counts)
        if step.watch is not None:
            step.watch.note(page_ids, counts)
        return attend(rotated, kv, page_ids, counts, step.tails, scale)

    def _summarise(self, full: FullPages, some: slice = slice(None)) -> None:
        if self.selector is not None and self.summary is not None and len(full.pages):
            pages = full.pages[some]
            keys = FullKeys(self.kv[pages, :, 0], full.cos[some], full.sin[some], full.first[some])
            self.summary[pages] = self.selector.summarise(keys).to(self.summary.dtype)
