"""What it costs the next token that a KV head reads less.

Small errors of several layers add up: the KL of the next token with all layers sparse is close to the sum of
the KLs with each layer sparse alone (both are second-order in the errors of the layers' outputs). That sum
is what an allocation should make small. A layer's own KL is measured at one budget, on short documents, and
follows the squared error of its attention output at other budgets and lengths and with other selectors: what
an error costs is the layer's. One dense pass gives those errors for all layers. In the same way the KV heads
of a layer add up, each with the error of its own group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.allotment import Cost
from seer_ray.fidelity.passes import DensePass, Layer, Pages, SparsePass
from seer_ray.fidelity.quality import Rows, compare
from seer_ray.kernels.attend import attend
from seer_ray.models.families import family_of
from seer_ray.models.limits import LEAST, Limit
from seer_ray.models.patch import (
    attention_shape,
    embed,
    forward_tokens,
    logits_of,
    normalise,
    output_projection,
    patch_attention,
    rope_tables,
    run_layers,
)
from seer_ray.selectors.base import Selector
from seer_ray.selectors.oracle import Oracle


@dataclass
class LayerCosts:
    """Of one layer and selector, means over documents."""

    heads: list[dict[int, Cost]] = field(default_factory=list)
    """Of each KV head, by how many blocks it may read: KV tokens read, and the KL that follows from the error
    of the attention output, nats a row."""


class Price(NamedTuple):
    """Of the errors of a layer."""

    kl: float
    """With this layer sparse alone at the plain budget, nats a row, mean over documents."""
    each: float
    """KL of a squared error of 1."""


def ladder(most: int, rungs: int = 2) -> list[int]:
    """Numbers of blocks from the least that can be read to ``most``, each 2^(1/rungs) times the last."""
    found, exact = {LEAST, most}, float(LEAST)
    while exact < most:
        found.add(round(exact))
        exact *= 2 ** (1 / rungs)
    return sorted(found)


@torch.inference_mode()
def price_layers(
    model: Any,
    documents: Sequence[Document],
    selectors: Sequence[Selector | None],
    budget: int,
    *,
    block: int,
    sink: bool,
    rows: Rows,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[int, Price]:
    """What errors of each layer cost that selects: half a pass of the model for each of them and document.

    Args:
        model: a causal language model; its attention is patched (idempotent).
        documents: one at a time is in memory; their rows lie beyond the budget.
        selectors: whose errors they are, one per layer; None: a layer that stays dense and is left out.
        budget: in blocks.
        block: tokens a block.
        sink: force the first block, inside the budget.
        rows: which tokens count.
        progress: told what is being computed.
    """
    patch_attention(model)
    shape, weight = attention_shape(model), next(model.parameters())
    sums = {layer: [0.0, 0.0] for layer, sparse in enumerate(selectors) if sparse is not None}
    for number, document in enumerate(documents, 1):
        length, tokens = len(document.tokens), document.tokens.to(weight.device)
        pages = Pages(shape, rope_tables(model, length), length, block, weight, sink)
        chosen = rows.of(length, weight.device)
        progress(f"document {number}: dense")
        dense = forward_tokens(model, tokens, DensePass(pages))[chosen]
        hidden = embed(model, tokens)
        for index, sparse in enumerate(selectors):
            before = hidden
            if sparse is None:
                hidden = run_layers(model, hidden, DensePass(pages), range(index, index + 1))
                continue
            hidden, errors = _errors(model, hidden, pages, index, {"": sparse}, chosen, [budget])
            progress(f"document {number}: layer {index} alone")
            alone = [sparse if one == index else None for one in range(shape.layers)]
            step = SparsePass(pages, alone, [Limit(budget)] * shape.layers)
            after = normalise(model, run_layers(model, before, step, range(index, shape.layers)))
            kl = compare(partial(logits_of, model), dense, after[chosen])[0].mean()
            sums[index][0] += float(kl) / len(documents)
            sums[index][1] += float(errors[""][budget][:, 1].sum()) / len(chosen) / len(documents)
    return {layer: Price(kl, kl / error if error else 0.0) for layer, (kl, error) in sums.items()}


@torch.inference_mode()
def measure_layers(
    model: Any,
    documents: Sequence[Document],
    selectors: Mapping[str, Sequence[Selector | None]],
    prices: Mapping[int, Price],
    *,
    block: int,
    blocks: Sequence[int],
    sink: bool,
    rows: Rows,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[int, LayerCosts]]:
    """What the heads of each layer cost that has a price, by selector: one pass of the model a document.

    Args:
        model, documents, block, sink, rows, progress: see ``price_layers``.
        selectors: by name, one per layer.
        prices: of layers.
        blocks: what a head may read.
    """
    patch_attention(model)
    shape, weight = attention_shape(model), next(model.parameters())
    found: dict[str, dict[int, LayerCosts]] = {name: {} for name in selectors}
    for number, document in enumerate(documents, 1):
        length, tokens = len(document.tokens), document.tokens.to(weight.device)
        pages = Pages(shape, rope_tables(model, length), length, block, weight, sink)
        chosen = rows.of(length, weight.device)
        hidden = embed(model, tokens)
        for index in range(shape.layers):
            progress(f"document {number}: errors of layer {index}")
            if index not in prices:
                hidden = run_layers(model, hidden, DensePass(pages), range(index, index + 1))
                continue
            own = {name: sparse for name, each in selectors.items() if (sparse := each[index]) is not None}
            hidden, errors = _errors(model, hidden, pages, index, own, chosen, blocks)
            part = 1 / len(chosen) / len(documents)
            for name, by_blocks in errors.items():
                _add(found[name].setdefault(index, LayerCosts()), by_blocks, prices[index].each, part)
    return found


def _errors(
    model: Any,
    hidden: Tensor,
    pages: Pages,
    index: int,
    selectors: Mapping[str, Selector],
    chosen: Tensor,
    blocks: Sequence[int],
) -> tuple[Tensor, dict[str, dict[int, Tensor]]]:
    """One layer, run densely: hidden states behind it, and ``OutputErrors.sums``."""
    errors = OutputErrors(selectors, chosen, blocks)
    with Taken(model, index) as taken:
        hidden = run_layers(model, hidden, DensePass(pages, errors.look), range(index, index + 1))
    errors.measure(taken)
    return hidden, errors.sums


class Taken:
    """What a layer's output projection is given while it runs: the attention of a hosted model, which may be
    gated before it is projected. That of other models is projected as it is.

    Attributes:
        weight: of the projection, ``[hidden, q_heads * head_dim]``.
        given: ``[tokens, q_heads * head_dim]``; None: the attention itself.
    """

    def __init__(self, model: Any, layer: int) -> None:
        self._projection = output_projection(model, layer)
        self._watched = family_of(model.config).hosted
        self.weight: Tensor = self._projection.weight
        self.given: Tensor | None = None

    def __enter__(self) -> Taken:
        if self._watched:
            self._hook = self._projection.register_forward_pre_hook(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        if self._watched:
            self._hook.remove()

    def _see(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.given = arguments[0].flatten(0, -2)


class OutputErrors:
    """The squared error that each budget of each selector makes in a layer's attention output, and what it
    reads."""

    def __init__(self, selectors: Mapping[str, Selector | None], rows: Tensor, blocks: Sequence[int]) -> None:
        self.selectors = {name: one for name, one in selectors.items() if one is not None}
        self.rows, self.blocks = rows, blocks
        self.layer: Layer | None = None
        self.sums: dict[str, dict[int, Tensor]] = {name: {} for name in selectors}
        """By selector and blocks: KV tokens read and squared error of each KV head, ``[kv_heads, 2]``."""

    def look(self, layer: Layer) -> None:
        """Keeps the layer, for ``measure``."""
        self.layer = layer

    def measure(self, taken: Taken) -> None:
        """Of the layer that has just run, as long as the pages hold its keys."""
        layer = self.layer
        assert layer is not None
        pages, dense = layer.pages, layer.dense()
        summaries = {name: pages.summarise(one) for name, one in self.selectors.items()}
        # A gate of the output multiplies it: the quotient is what an error is multiplied by as well.
        gains = None if taken.given is None else (taken.given / dense.flatten(1)).nan_to_num(0.0, 0.0, 0.0)
        heads = pages.shape.kv_heads
        weight = taken.weight.unflatten(1, (heads, -1))
        knows = any(isinstance(one, Oracle) for one in self.selectors.values())
        for rows in layer.chunks(self.rows, logits=knows):
            tails = rows % pages.block + 1
            for name, selector in self.selectors.items():
                scores = layer.scores(selector, rows, summaries[name])
                for blocks in self.blocks:
                    page_ids, counts = layer.select(scores, rows, Limit(blocks), selector)
                    scale, sinks = layer.asked.scale, layer.asked.sinks
                    sparse = attend(layer.q[rows], pages.kv, page_ids, counts, tails, scale, sinks=sinks)
                    difference = (sparse - dense[rows]).flatten(1)
                    if gains is not None:
                        difference = difference * gains[rows]
                    # Without the bias: it is in both.
                    parts = torch.einsum("rhi,ohi->hro", difference.unflatten(1, (heads, -1)), weight)
                    errors = parts.flatten(1).double().square().sum(1)
                    read = ((counts - 1) * pages.block + tails.unsqueeze(1)).double().sum(0)
                    sums = torch.stack([read, errors], dim=1)
                    self.sums[name][blocks] = self.sums[name].get(blocks, 0) + sums


def _add(costs: LayerCosts, sums: Mapping[int, Tensor], price: float, part: float) -> None:
    """One document's, a row of which counts as ``part``."""
    for blocks, by_head in sums.items():
        costs.heads = costs.heads or [{} for _ in by_head]
        for own, (read, error) in zip(costs.heads, by_head.tolist(), strict=True):
            before = own.get(blocks, Cost(0.0, 0.0))
            own[blocks] = Cost(before.read + read * part, before.loss + price * error * part)
