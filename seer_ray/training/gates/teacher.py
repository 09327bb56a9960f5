"""The frozen model's forward pass, one layer at a time in memory, with what its attention looks at."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from seer_ray.corpora.pack import Pack, first_row
from seer_ray.kernels.target import Kind, attend_with_target
from seer_ray.models.patch import decoder_layer
from seer_ray.models.rope import RopeTable

Lesson = Callable[[int, Tensor, Tensor, list[Tensor]], None]
"""Told (layer, q, k, targets): q and k before rotation, ``[tokens, heads, head_dim]``; of each document, the
targets of its rows from ``first_row`` on, ``[rows, kv_heads, blocks]``."""


class Teacher:
    """A ``Step`` (see ``models.patch``): dense attention inside each document, targets for chosen layers.

    Args:
        pack: the documents.
        rope: the model's.
        layers: those with a target.
        block: tokens a block.
        skip: see ``first_row``.
        kind: see ``kernels.target``.
        lesson: told what each chosen layer gave, before the next layer begins.
    """

    def __init__(
        self,
        pack: Pack,
        rope: RopeTable,
        layers: Collection[int],
        block: int,
        skip: float,
        kind: Kind,
        lesson: Lesson,
    ) -> None:
        self.pack, self.layers, self.block, self.skip, self.kind = pack, layers, block, skip, kind
        self.lesson = lesson
        self.rope, self.positions = rope, pack.positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See ``models.patch.Step``."""
        q_rotated, k_rotated = (self.rope.rotate(x, self.positions) for x in (q, k))
        taught = layer in self.layers
        out, targets = torch.empty_like(q, dtype=v.dtype), []
        for d in self.pack.documents():
            length = d.stop - d.start
            first = first_row(length, self.block, self.skip) if taught else length
            out[d], target = attend_with_target(
                q_rotated[d], k_rotated[d], v[d], self.block, scale, first, self.kind
            )
            targets.append(target)
        if taught:
            self.lesson(layer, q, k, targets)
        return out


@torch.no_grad()
def teach(model: Any, pack: Pack, teacher: Teacher) -> None:
    """Run the model as far as the last layer that has a target."""
    hidden = model.model.embed_tokens(pack.tokens).unsqueeze(0)
    for layer in model.model.layers[: max(teacher.layers) + 1]:
        hidden = decoder_layer(layer, hidden, teacher)
