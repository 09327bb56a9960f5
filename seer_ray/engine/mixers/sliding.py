"""Attention to the last tokens of a sequence, as many as the model's window holds."""

from __future__ import annotations

import torch

from seer_ray.engine.passes import DecodePass, Decoder, PrefillPass
from seer_ray.kernels.append import normalise_rotate_append
from seer_ray.kernels.attend import attend
from seer_ray.kernels.prefill import prefill
from seer_ray.models.step import Attention


class SlidingAttention:
    """A ``Mixer``. The pages behind the window are others' by now, and are not read."""

    def __init__(self, decoder: Decoder, layer: int) -> None:
        kv, group = decoder.cache.kv[layer], decoder.cache.group_of[layer]
        assert kv is not None and group is not None
        self.layer, self.kv, self.group, self.rope = layer, kv, group, decoder.ropes[layer]
        self.window = decoder.cache.groups[group].window

    def prefill(self, step: PrefillPass, asked: Attention) -> torch.Tensor:
        q, k, v, scale, sinks, norms = asked
        own = step.groups[self.group]
        rotary = step.rotary(self.rope)
        _, rotated = normalise_rotate_append(q, k, v, norms, *rotary, self.kv, own.pages, step.offsets)
        return prefill(rotated, self.kv, own.chunks, scale, window=self.window, sinks=sinks)

    def decode(self, step: DecodePass, asked: Attention) -> torch.Tensor:
        q, k, v, scale, sinks, norms = asked
        own = step.groups[self.group]
        rotary = step.rotary(self.rope)
        _, rotated = normalise_rotate_append(q, k, v, norms, *rotary, self.kv, own.pages, step.offsets)
        step.note(self.layer, own.ids, own.counts)
        seen = own.ids, own.counts, step.tails
        return attend(rotated, self.kv, *seen, scale, own.skips, sinks, step.spans, own.window)
