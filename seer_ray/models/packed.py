"""A pass over whole documents that keeps nothing for later: training, and a forward of transformers.

Documents stand one after the other in a row, with positions that restart, and no mixer reaches from one
into another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from seer_ray.kernels.rotary import rotate
from seer_ray.models.mixers import MIXERS, layer_mixers
from seer_ray.models.recurrence import Nothing, Run
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention


@dataclass(frozen=True)
class Documents:
    """Where documents lie in packed tokens."""

    lengths: tuple[int, ...]

    @cached_property
    def uniform(self) -> bool:
        return len(set(self.lengths)) == 1

    @cached_property
    def positions(self) -> Tensor:
        """Of every token in its document, ``[tokens]``."""
        return torch.cat([torch.arange(length) for length in self.lengths])


Mixer = Callable[[Tensor, Tensor, Tensor, Documents, float], Tensor]
"""(q ``[tokens, q_heads, dim]``, k and v ``[tokens, kv_heads, dim]``, documents, scale) -> like q."""


def attention(q: Tensor, k: Tensor, v: Tensor, documents: Documents, scale: float) -> Tensor:
    """Causal attention to the whole document."""
    return _by_document(q, k, v, documents, scale, None)


def sliding(window: int) -> Mixer:
    """Causal attention to the last ``window`` tokens, the token itself among them."""

    def mix(q: Tensor, k: Tensor, v: Tensor, documents: Documents, scale: float) -> Tensor:
        return _by_document(q, k, v, documents, scale, window)

    return mix


def mixers_of(config: Any) -> list[Mixer]:
    """The mixers of a model, from the ``layer_types`` of its Hugging Face config."""
    window = config.sliding_window
    return [sliding(window) if MIXERS[name].windowed else attention for name in layer_mixers(config)]


class PackedStep:
    """One pass over packed documents: a ``models.step.HostedStep``."""

    def __init__(self, documents: Documents, rope: RopeTable, mixers: Sequence[Mixer]) -> None:
        self.documents, self.mixers = documents, mixers
        self.position = documents.positions.to(rope.inv_freq.device)
        self.cos, self.sin = rope.at(self.position)

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(self.documents.lengths)

    def recur(self, layer: int, hidden: Tensor, run: Run) -> Tensor:
        """See ``models.step``."""
        lengths = self.documents.lengths
        if self.documents.uniform:
            return run(hidden.view(len(lengths), -1, hidden.shape[-1]), Nothing()).flatten(0, 1)
        # Documents of about one length together: what stands behind a shorter one does not reach it.
        parts = hidden.split(lengths)
        out = list(parts)
        for size in sorted({length.bit_length() for length in lengths}):
            alike = [index for index, length in enumerate(lengths) if length.bit_length() == size]
            made = run(pad_sequence([parts[index] for index in alike], batch_first=True), Nothing())
            for row, index in enumerate(alike):
                out[index] = made[row, : lengths[index]]
        return torch.cat(out)

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``; models of this kind have no sinks."""
        q, k = (rotate(x, self.cos, self.sin) for x in (asked.q, asked.k))
        return self.mixers[layer](q, k, asked.v, self.documents, asked.scale)


def _by_document(
    q: Tensor, k: Tensor, v: Tensor, documents: Documents, scale: float, window: int | None
) -> Tensor:
    if documents.uniform:
        rows, length = len(documents.lengths), documents.lengths[0]
        q, k, v = (x.view(rows, length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        return _attend(q, k, v, scale, window).transpose(1, 2).flatten(0, 1)
    parts = [x.transpose(0, 1).unsqueeze(0).split(documents.lengths, dim=2) for x in (q, k, v)]
    mixed = [_attend(q, k, v, scale, window) for q, k, v in zip(*parts, strict=True)]
    return torch.cat(mixed, dim=2)[0].transpose(0, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """``q [rows, q_heads, length, dim]``, ``k, v [rows, kv_heads, length, dim]`` -> like q."""
    length = q.shape[2]
    if window is None or window >= length:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    behind = torch.arange(length, device=q.device)
    distance = behind.unsqueeze(1) - behind
    mask = (distance >= 0) & (distance < window)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
