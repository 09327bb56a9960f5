"""The frozen model's forward pass, one layer at a time in memory, with what its attention looks at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from seer_ray.corpora.pack import Pack, first_row
from seer_ray.kernels.block_target import attend_with_blocks
from seer_ray.kernels.causal import causal
from seer_ray.kernels.target import Kind, attend_with_target
from seer_ray.models.patch import AttentionShape, embed, run_layers
from seer_ray.models.recurrence import Run, recur_apart
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention

Lesson = Callable[[int, Tensor, Tensor, list[Tensor]], None]
"""Told (layer, q, k, targets): q and k before rotation, ``[tokens, heads, head_dim]``; of each document, the
targets of its rows from ``first_row`` on, ``[rows, kv_heads, blocks]``, or of prefill gates those of all its
blocks, ``[q_heads, q_blocks, k_blocks]``."""


class Teacher:
    """A ``Step`` (see ``models.patch``): dense attention inside each document, targets for chosen layers.

    Args:
        pack: the documents.
        shape: of the model's attention.
        ropes: of each layer.
        layers: those with a target.
        block: tokens a block.
        skip: see ``first_row``.
        kind: see ``kernels.target``.
        pairs: targets are of pairs of blocks, for prefill gates (``kernels.block_target``).
        lesson: told what each chosen layer gave, before the next layer begins.
    """

    def __init__(
        self,
        pack: Pack,
        shape: AttentionShape,
        ropes: Sequence[RopeTable],
        layers: Collection[int],
        block: int,
        skip: float,
        kind: Kind,
        pairs: bool,
        lesson: Lesson,
    ) -> None:
        self.pack, self.layers, self.block, self.skip = pack, layers, block, skip
        self.kind, self.pairs = kind, pairs
        self.lesson = lesson
        self.shape, self.ropes, self.position = shape, ropes, pack.positions

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``."""
        q, k, v, scale, sinks, _ = asked
        q_rotated, k_rotated = (self.ropes[layer].rotate(x, self.position) for x in (q, k))
        taught, window = layer in self.layers, self.shape.reach(layer)
        out, targets = torch.empty_like(q, dtype=v.dtype), []
        for d in self.pack.documents():
            if not taught:
                out[d] = causal(q_rotated[d], k_rotated[d], v[d], scale, window, sinks)
                continue
            if self.pairs:
                out[d], maps = attend_with_blocks(q_rotated[d], k_rotated[d], v[d], self.block, scale, sinks)
                targets.append(maps.mass if self.kind == "mass" else maps.largest)
                continue
            first = first_row(d.stop - d.start, self.block, self.skip)
            out[d], target = attend_with_target(
                q_rotated[d], k_rotated[d], v[d], self.block, scale, first, self.kind, sinks
            )
            targets.append(target)
        if taught:
            self.lesson(layer, q, k, targets)
        return out

    def recur(self, layer: int, hidden: Tensor, run: Run) -> Tensor:
        """See ``models.step``."""
        return recur_apart(hidden, self.pack.lengths, run)


@torch.no_grad()
def teach(model: Any, pack: Pack, teacher: Teacher) -> None:
    """Run the model as far as the last layer that has a target."""
    run_layers(model, embed(model, pack.tokens), teacher, range(max(teacher.layers) + 1))
