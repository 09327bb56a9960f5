"""Attention over paged K and V: to all blocks of a sequence, or to those that the layer's selector picks."""

from __future__ import annotations

import torch

from seer_ray.engine.passes import DecodePass, Decoder, FullPages, PrefillPass
from seer_ray.kernels.append import normalise_rotate_append
from seer_ray.kernels.attend import attend
from seer_ray.kernels.prefill import prefill
from seer_ray.kernels.select import select
from seer_ray.models.step import Attention
from seer_ray.selectors.base import CurrentPages, FullKeys, Query


class PagedAttention:
    """A ``Mixer``."""

    def __init__(self, decoder: Decoder, layer: int) -> None:
        kv, group = decoder.cache.kv[layer], decoder.cache.group_of[layer]
        assert kv is not None and group is not None
        self.layer, self.kv, self.group, self.rope = layer, kv, group, decoder.ropes[layer]
        self.summary = decoder.cache.summary[layer]
        self.spec, self.selector = decoder.plan.layers[layer], decoder.selectors[layer]
        self.sparse_prefill = decoder.plan.sparse_prefill

    def prefill(self, step: PrefillPass, asked: Attention) -> torch.Tensor:
        kv, spec, own = self.kv, self.spec, step.groups[self.group]
        q, k, v, scale, sinks, norms = asked
        rotary = step.rotary(self.rope)
        q, rotated = normalise_rotate_append(q, k, v, norms, *rotary, kv, own.pages, step.offsets)
        if self.selector is None or spec.blocks is None:
            return prefill(rotated, kv, own.chunks, scale, sinks=sinks)
        self._summarise(step.full)
        if not self.sparse_prefill or own.chunks.table.shape[1] <= spec.blocks:
            return prefill(rotated, kv, own.chunks, scale, sinks=sinks)
        tiles, query = own.tiles, Query(q, rotated, kv, self.summary, scale)
        scores = tiles.mean(self.selector.scores(query, own.view))
        block = own.chunks.block
        chosen = select(scores, tiles.table, tiles.lengths, block, spec.blocks, spec.sink, spec.threshold)
        return prefill(rotated, kv, own.chunks, scale, *chosen, sinks=sinks)

    def decode(self, step: DecodePass, asked: Attention) -> torch.Tensor:
        kv, selector, spec, own = self.kv, self.selector, self.spec, step.groups[self.group]
        q, k, v, scale, sinks, norms = asked
        rotary = step.rotary(self.rope)
        q, rotated = normalise_rotate_append(q, k, v, norms, *rotary, kv, own.pages, step.offsets)
        if selector is None or spec.blocks is None:
            page_ids, counts = own.ids, own.counts
        else:
            view, query = own.view, Query(q, rotated, kv, self.summary, scale)
            if isinstance(step.full, CurrentPages):
                scores = selector.step(query, view, step.full, self.rope)
            else:
                for index in range(len(step.full.pages)):  # rows that fill a page together share no product
                    self._summarise(step.full, slice(index, index + 1))
                scores = selector.scores(query, view)
            page_ids, counts = select(
                scores, view.page_table, view.lengths, view.block, spec.blocks, spec.sink, spec.threshold
            )
        step.note(self.layer, page_ids, counts)
        return attend(rotated, kv, page_ids, counts, step.tails, scale, sinks=sinks)

    def _summarise(self, full: FullPages, some: slice = slice(None)) -> None:
        if self.selector is not None and self.summary is not None and len(full.pages):
            pages, (cos, sin) = full.pages[some], full.tables(self.rope)
            keys = FullKeys(self.kv[pages, :, 0], cos[some], sin[some], full.first[some])
            self.summary[pages] = self.selector.summarise(keys).to(self.summary.dtype)
