"""What it costs the next token that a query head reads less of a prompt, and how heads share a density.

As ``sensitivity`` has it of decode steps: a layer's KL is measured at one density, and follows the squared
error of its attention output at the others; the query heads of a layer add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.allotment import Cost, allot, total
from seer_ray.fidelity.passes import Pages
from seer_ray.fidelity.prompt_passes import Contender, PromptPass, chosen, read_chosen
from seer_ray.fidelity.quality import compare
from seer_ray.fidelity.sensitivity import Taken
from seer_ray.kernels.block_target import BlockMaps
from seer_ray.kernels.blocks import Amount
from seer_ray.kernels.rotary import rotate
from seer_ray.models.allocation import Allocation
from seer_ray.models.patch import (
    attention_shape,
    embed,
    forward_tokens,
    logits_of,
    normalise,
    patch_attention,
    rope_tables,
    run_layers,
)
from seer_ray.models.step import Attention

DENSITIES = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.85)
"""That a head may have."""
MEANS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""That heads share; densities between them are interpolated."""
PLAIN = 0.2
"""At which the KL of a layer alone is measured."""
ROWS = 4
"""Every so many rows count for that."""


@torch.inference_mode()
def share_density(
    model: Any,
    documents: Sequence[Document],
    contenders: Sequence[Contender | None],
    *,
    block: int,
    sink: bool,
    last_blocks: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Allocation:
    """How the query heads of all layers best share ``MEANS``: half a pass of the model for each layer and
    document, and the attention of each layer at each of ``DENSITIES``.

    Args:
        model: a causal language model; its attention is patched (idempotent).
        documents: prompts, one at a time in memory.
        contenders: what chooses blocks, one per layer; None: a layer that is dense and is left out.
        block: tokens a block.
        sink: force the first block.
        last_blocks: blocks of rows at the end that are dense.
        progress: told what is being computed.
    """
    patch_attention(model)
    shape, weight = attention_shape(model), next(model.parameters())
    layers = [layer for layer, contender in enumerate(contenders) if contender is not None]
    heads: dict[int, list[dict[float, Cost]]] = {}
    for number, document in enumerate(documents, 1):
        length, tokens = len(document.tokens), document.tokens.to(weight.device)
        pages = Pages(shape, rope_tables(model, length), length, block, weight, sink)
        progress(f"sharing, document {number}: dense")
        dense = forward_tokens(model, tokens, PromptPass(pages))
        hidden = embed(model, tokens)
        for layer in range(shape.layers):
            this, contender, before = range(layer, layer + 1), contenders[layer], hidden
            if contender is None:
                hidden = run_layers(model, hidden, PromptPass(pages), this)
                continue
            progress(f"sharing, document {number}: layer {layer}")
            errors = _Errors(pages, contender, last_blocks)
            with Taken(model, layer) as taken:
                hidden = run_layers(model, hidden, PromptPass(pages, errors.look), this)
            found = errors.measure(taken)
            alone = [contender if one == layer else None for one in range(shape.layers)]
            step = PromptPass(pages, None, alone, Amount(density=PLAIN), last_blocks)
            after = normalise(model, run_layers(model, before, step, range(layer, shape.layers)))
            kl = compare(partial(logits_of, model), dense[::ROWS], after[::ROWS])[0].mean()
            plain = sum(error for _, error in found[PLAIN])
            each = float(kl) / plain if plain else 0.0
            own = heads.setdefault(layer, [{} for _ in found[PLAIN]])
            for density, by_head in found.items():
                for costs, (read, error) in zip(own, by_head, strict=True):
                    before_ = costs.get(density, Cost(0.0, 0.0))
                    costs[density] = Cost(
                        before_.read + read / len(documents), before_.loss + each * error / len(documents)
                    )
    everyone = [costs for layer in layers for costs in heads[layer]]
    # Of densities that are as many blocks of these documents, the largest: longer prompts tell them apart.
    by_read = {read: density for density, (read, _) in everyone[0].items()}
    choices = [{density: costs[density] for density in by_read.values()} for costs in everyone]
    shared = []
    for mean in MEANS:
        read = total(everyone, [mean] * len(everyone)).read / len(everyone)
        picked = iter(allot(choices, read))
        shared.append(tuple(tuple(next(picked) for _ in heads[layer]) for layer in layers))
    return Allocation(tuple(layers), MEANS, tuple(shared))


class _Errors:
    """The squared error that each density makes in a layer's output, by query head, and what it reads."""

    def __init__(self, pages: Pages, contender: Contender, last_blocks: int) -> None:
        self.pages, self.contender, self.last_blocks = pages, contender, last_blocks
        self._seen: tuple[Attention, BlockMaps] | None = None

    def look(self, layer: int, asked: Attention, maps: BlockMaps) -> None:
        """Keeps the layer, for ``measure``."""
        self._seen = asked, maps

    def measure(self, taken: Taken) -> dict[float, list[tuple[float, float]]]:
        """Of the layer that has just run, as long as the pages hold its keys: by density and query head the
        share of the pairs of blocks that is read, and the error a token."""
        assert self._seen is not None
        (asked, maps), pages = self._seen, self.pages
        rotated = rotate(asked.q, pages.cos, pages.sin)
        dense = pages.dense(rotated, asked.scale, asked.sinks)
        gains = None if taken.given is None else (taken.given / dense.flatten(1)).nan_to_num(0.0, 0.0, 0.0)
        weights = taken.weight.unflatten(1, (rotated.shape[1], -1)).float()
        # |W x|^2 over all x is the inner product of two small matrices.
        squared = torch.einsum("ohi,ohj->hij", weights, weights)
        scores = self.contender.scores(asked, maps)
        pairs = pages.count * (pages.count + 1) / 2
        found = {}
        for density in DENSITIES:
            keep = chosen(scores, Amount(density=density), pages.sink, self.last_blocks)
            difference = read_chosen(pages, rotated, keep, asked) - dense
            if gains is not None:
                difference = difference * gains.view_as(difference)
            products = torch.einsum("nhi,nhj->hij", difference.float(), difference.float())
            errors = (products * squared).sum((1, 2)).clamp(min=0) / pages.length
            found[density] = list(zip((keep.sum((1, 2)) / pairs).tolist(), errors.tolist(), strict=True))
        return found
