"""Passes of a model in which some layers are relaxed, from the first of these on.

What comes before it is as in the dense model, and is kept. A pass is one of many documents side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seer_ray.corpora.pack import Pack
from seer_ray.fidelity.passes import Pages, SparsePass
from seer_ray.kernels.causal import causal
from seer_ray.models.gate import AttnGate
from seer_ray.models.limits import Limit
from seer_ray.models.patch import (
    AttentionShape,
    attention_shape,
    embed,
    normalise,
    patch_attention,
    rope_tables,
    run_layers,
)
from seer_ray.models.recurrence import Run, recur_apart
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention
from seer_ray.selectors.seer import Seer
from seer_ray.study.relax import MAPS, Asked, mix

Look = Callable[[int, int, str, Asked], None]
"""Told (layer, number of the document, what the layer is, its queries and keys) of each layer with a map."""
STREAMS = ("static", "fixed", "random")
"""Relaxations whose queries and keys are not of the layer's own input."""
KEPT = 2**30
"""Bytes of hidden states that are kept of a dense pass, about."""


@dataclass(frozen=True)
class How:
    """What relaxations need to know beside the model.

    Attributes:
        window, first: see ``relax.Asked``.
        gates: of each layer; empty: there are none.
        budget: of ``gated``, in blocks.
        sink: ``gated`` always reads the first block.
    """

    window: int = 64
    first: int = 4
    gates: Sequence[AttnGate | None] = ()
    budget: int = 2
    sink: bool = True


class Model:
    """A patched model whose layers can be relaxed.

    Args:
        model: a causal language model.
        how: see ``How``.
        length: of the longest document.
    """

    def __init__(self, model: Any, how: How, length: int) -> None:
        patch_attention(model)
        self.model, self.how, self.length = model, how, length
        self.shape: AttentionShape = attention_shape(model)
        self.ropes: Sequence[RopeTable] = rope_tables(model, length)
        self.weight = next(model.parameters())
        self._streams: dict[str, list[Attention]] = {}

    def set_stream(self, kind: str, hidden: Tensor) -> None:
        """Lets an input of its own, ``[tokens, hidden]``, pass through the dense model: its queries and keys
        in each layer are those of ``kind``."""
        pack = Pack((torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)), (0, len(hidden)))
        step = RelaxedStep(self, pack, {}, record=True)
        run_layers(self.model, hidden.unsqueeze(0), step, range(self.shape.layers))
        self._streams[kind] = step.recorded

    def embedded(self, tokens: Tensor) -> Tensor:
        """What enters the first layer, ``[tokens, hidden]``."""
        return embed(self.model, tokens.to(self.weight.device, torch.int64)).squeeze(0)

    def stream(self, kind: str, layer: int, pack: Pack) -> Attention:
        """Queries and keys of ``kind`` in a layer, for a pack (``static``) or for any document."""
        if kind != "static":
            return self._streams[kind][self.shape.attending().index(layer)]
        step = RelaxedStep(self, pack, {}, record=True)
        run_layers(self.model, self.embedded(pack.tokens).unsqueeze(0), step, range(layer, layer + 1))
        return step.recorded[0]

    def layers(self, hidden: Tensor, step: RelaxedStep, some: range, skipped: Collection[int] = ()) -> Tensor:
        """Hidden states ``[1, tokens, hidden]`` through layers, without those that are left out."""
        start = some.start
        for layer in (*sorted(set(skipped) & set(some)), some.stop):
            if layer > start:
                hidden = run_layers(self.model, hidden, step, range(start, layer))
            start = layer + 1
        return hidden


class RelaxedStep:
    """A ``models.step.HostedStep``: attention inside each document, in some layers relaxed.

    Args:
        model: whose pass it is.
        pack: the documents.
        relaxed: layer -> of ``config.study.RELAXATIONS``.
        look: told of every layer that has a map.
        record: keep queries and keys, in ``recorded``.
    """

    def __init__(
        self,
        model: Model,
        pack: Pack,
        relaxed: Mapping[int, str],
        look: Look | None = None,
        record: bool = False,
    ) -> None:
        self.model, self.pack, self.relaxed, self.look = model, pack, relaxed, look
        self.recorded: list[Attention] = []
        """Of each layer with attention, in order."""
        self._record, self.position = record, pack.positions

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``."""
        model, kind = self.model, self.relaxed.get(layer, "dense")
        if self._record:
            self.recorded.append(asked)
        if kind == "silent":
            return asked.q.new_zeros(asked.q.shape)
        if kind == "gated":
            return self._gated(layer, asked)
        q, k = self._rotated(layer, asked)
        if kind in STREAMS:
            of = model.stream(kind, layer, self.pack)
            rope = model.ropes[layer]
            position = self.position if kind == "static" else torch.arange(len(of.q), device=q.device)
            q, k = rope.rotate(of.q, position), rope.rotate(of.k, position)
        out = torch.empty_like(asked.q, dtype=asked.v.dtype)
        for number, d in enumerate(self.pack.documents()):
            place = slice(0, d.stop - d.start) if kind in ("fixed", "random") else d
            one = Asked(q[place], k[place], asked.scale, asked.sinks, model.how.window, model.how.first)
            if kind == "dense":
                out[d] = causal(one.q, one.k, asked.v[d], asked.scale, model.shape.reach(layer), asked.sinks)
            else:
                out[d] = mix(kind, one, asked.v[d])
            if self.look is not None and model.shape.reach(layer) is None:
                self.look(layer, number, kind, one)
        return out

    def recur(self, layer: int, hidden: Tensor, run: Run) -> Tensor:
        """See ``models.step``."""
        return recur_apart(hidden, self.pack.lengths, run)

    def _rotated(self, layer: int, asked: Attention) -> tuple[Tensor, Tensor]:
        rope = self.model.ropes[layer]
        return rope.rotate(asked.q, self.position), rope.rotate(asked.k, self.position)

    def _gated(self, layer: int, asked: Attention) -> Tensor:
        """As decoding does it, document by document."""
        model, how = self.model, self.model.how
        gate = how.gates[layer]
        assert gate is not None
        selectors = [Seer(gate) if one == layer else None for one in range(model.shape.layers)]
        limits = [Limit(how.budget)] * model.shape.layers
        parts = []
        for d in self.pack.documents():
            pages = Pages(model.shape, model.ropes, d.stop - d.start, gate.block_size, model.weight, how.sink)
            one = Attention(asked.q[d], asked.k[d], asked.v[d], asked.scale, asked.sinks)
            parts.append(SparsePass(pages, selectors, limits).attend(layer, one))
        return torch.cat(parts)


@dataclass
class DensePack:
    """Documents, and what the dense model makes of them.

    Attributes:
        model: the dense one.
        pack: the documents.
        rows: places of the rows that count, in the pack.
        states: hidden states before some layers, ``[1, tokens, hidden]``; before the first always.
        final: normalised hidden states of the rows, ``[rows, hidden]``.
    """

    model: Model
    pack: Pack
    rows: Tensor
    states: dict[int, Tensor] = field(default_factory=dict)
    final: Tensor = field(init=False)

    def run(self, most: int, look: Look | None = None) -> None:
        """The dense pass; ``most``: bytes of states to keep, about."""
        model, layers = self.model, self.model.shape.layers
        hidden = model.embedded(self.pack.tokens).unsqueeze(0)
        every = max(1, -(-layers * hidden.numel() * hidden.element_size() // max(1, most)))
        step = RelaxedStep(model, self.pack, {}, look)
        for start in range(0, layers, every):
            self.states[start] = hidden
            hidden = model.layers(hidden, step, range(start, min(start + every, layers)))
        self.final = normalise(model.model, hidden)[self.rows]

    def relaxed(self, layers: Collection[int], kind: str, look: Look | None = None) -> Tensor:
        """Normalised hidden states of the rows with some layers relaxed, ``[rows, hidden]``."""
        first = min(layers)
        start = max(place for place in self.states if place <= first)
        skipped = layers if kind == "skip" else ()
        step = RelaxedStep(self.model, self.pack, dict.fromkeys(layers, kind), look)
        some = range(start, self.model.shape.layers)
        hidden = self.model.layers(self.states[start], step, some, skipped)
        return normalise(self.model.model, hidden)[self.rows]


def with_map(kind: str) -> bool:
    """Whether a relaxed layer has a map of tokens."""
    return kind in MAPS
