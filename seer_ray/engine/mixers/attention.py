"""Attention over paged K and V: to all blocks of a sequence, or to those that the layer's selector picks."""

from __future__ import annotations

import torch

from seer_ray.engine.passes import DecodePass, Decoder, FullPages, PrefillPass
from seer_ray.engine.sparse_prefill import SparsePrefill, amount_here, attend_sparsely
from seer_ray.kernels.append import normalise_rotate_append
from seer_ray.kernels.attend import attend
from seer_ray.kernels.limits import Limits
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
        spec, self.selector = decoder.plan.layers[layer], decoder.selectors[layer]
        self.limits: Limits | None = None
        """None: dense."""
        if self.selector is not None and spec.limit is not None:
            self.limits = spec.limit.told(
                kv.shape[1],
                spec.sink,
                sharpness=self.selector.sharpness,
                device=kv.device,
                group=decoder.group,
            )
        self.sparse_prefill = decoder.plan.sparse_prefill
        self.prompts: SparsePrefill | None = None
        gate = decoder.prefill_gates[layer] if decoder.prefill_gates else None
        keys = decoder.cache.prefill_keys[layer]
        if gate is not None and keys is not None:
            assert decoder.plan.prefill is not None
            plan = decoder.plan.prefill
            self.prompts = SparsePrefill(gate, plan, amount_here(plan, layer, gate, decoder.group.rank), keys)

    def prefill(self, step: PrefillPass, asked: Attention) -> torch.Tensor:
        kv, selector, limits, own = self.kv, self.selector, self.limits, step.groups[self.group]
        q, k, v, scale, sinks, norms = asked
        rotary = step.rotary(self.rope)
        q, rotated = normalise_rotate_append(q, k, v, norms, *rotary, kv, own.pages, step.offsets)
        if self.prompts is not None and len(step.full.pages):
            self.prompts.summarise(step.full.pages, self._keys(step.full))
        if limits is not None:
            self._summarise(step.full)
        if self.prompts is not None and any(step.sparse):
            out, read = attend_sparsely(self.prompts, q, rotated, kv, own.chunks, step.sparse, scale, sinks)
            step.read.append(read)
            return out
        if selector is None or limits is None or not self.sparse_prefill:
            return prefill(rotated, kv, own.chunks, scale, sinks=sinks)
        if limits.everything(own.chunks.table.shape[1]):
            return prefill(rotated, kv, own.chunks, scale, sinks=sinks)
        tiles, query = own.tiles, Query(q, rotated, kv, self.summary, scale)
        scores = tiles.mean(selector.scores(query, own.view))
        chosen = select(scores, tiles.table, tiles.lengths, own.chunks.block, limits)
        return prefill(rotated, kv, own.chunks, scale, *chosen, sinks=sinks)

    def decode(self, step: DecodePass, asked: Attention) -> torch.Tensor:
        kv, selector, limits, own = self.kv, self.selector, self.limits, step.groups[self.group]
        q, k, v, scale, sinks, norms = asked
        rotary = step.rotary(self.rope)
        q, rotated = normalise_rotate_append(q, k, v, norms, *rotary, kv, own.pages, step.offsets)
        if selector is None or limits is None:
            page_ids, counts = own.ids, own.counts
        elif step.dense:
            self._fill(step)
            page_ids, counts = own.ids, own.counts
        else:
            view, query = own.view, Query(q, rotated, kv, self.summary, scale)
            if isinstance(step.full, CurrentPages):
                scores = selector.step(query, view, step.full, self.rope)
            else:
                self._summarise_each(step.full)
                scores = selector.scores(query, view)
            page_ids, counts = select(scores, view.page_table, view.lengths, view.block, limits)
        step.note(self.layer, page_ids, counts)
        return attend(rotated, kv, page_ids, counts, step.tails, scale, sinks=sinks, spans=step.spans)

    def _fill(self, step: DecodePass) -> None:
        """Summaries of the pages that a dense step fills, for sparse steps to come."""
        if self.selector is None or self.summary is None:
            return
        if isinstance(step.full, CurrentPages):
            self.selector.fill(self.kv, self.summary, step.full, self.rope)
        else:
            self._summarise_each(step.full)

    def _summarise_each(self, full: FullPages) -> None:
        for index in range(len(full.pages)):  # rows that fill a page together share no product
            self._summarise(full, slice(index, index + 1))

    def _summarise(self, full: FullPages, some: slice = slice(None)) -> None:
        if self.selector is not None and self.summary is not None and len(full.pages):
            summaries = self.selector.summarise(self._keys(full, some))
            self.summary[full.pages[some]] = summaries.to(self.summary.dtype)

    def _keys(self, full: FullPages, some: slice = slice(None)) -> FullKeys:
        cos, sin = full.tables(self.rope)
        return FullKeys(self.kv[full.pages[some], :, 0], cos[some], sin[some], full.first[some])
