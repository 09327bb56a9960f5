"""How good prefill gates are: what prompts keep of attention at a density, and the next token with that.

On held-out documents, each a prompt of its own. *Layer figures*: dense attention flows through the model, and
each layer is asked what its blocks of rows would have read. *Output figures*: the whole model runs on that.
Figures are of the rows that read sparsely: not of those that have no more blocks than are read, nor of the
last blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.figures import ALL, Figures, LayerFigure, OutputFigure
from seer_ray.fidelity.passes import Pages
from seer_ray.fidelity.prompt_passes import (
    ALLOCATED,
    LAST_BLOCKS,
    Gate,
    PromptPass,
    chosen,
    contenders_of,
    shared_amounts,
)
from seer_ray.fidelity.quality import ORACLE, compare
from seer_ray.kernels.block_target import BlockMaps
from seer_ray.kernels.blocks import Amount
from seer_ray.models.allocation import Allocation
from seer_ray.models.patch import attention_shape, forward_tokens, logits_of, patch_attention, rope_tables
from seer_ray.models.step import Attention

LOGIT_ROWS = 64
"""Rows of next-token logits that are held at a time."""


@dataclass(frozen=True)
class LossFigure:
    """Next-token loss of one document's rows, in nats."""

    document: str
    source: str
    selector: str
    budget: str
    """The density."""
    positions: str
    """As in ``LayerFigure``."""
    rows: int
    loss: float
    dense: float
    """Of the same rows, with dense attention."""


@dataclass
class PromptFigures(Figures):
    """All of one measurement. Budgets are densities; positions ``all``, or, where prompts of several lengths
    were measured, their length."""

    losses: list[LossFigure] = field(default_factory=list)

    def loss_table(self) -> list[dict[str, Any]]:
        """By length, density and selector: perplexity, that of dense attention, and how much larger it is."""
        groups: dict[tuple[str, str, str], list[LossFigure]] = {}
        for figure in self.losses:
            groups.setdefault((figure.positions, figure.budget, figure.selector), []).append(figure)
        table = []
        for (positions, budget, selector), own in groups.items():
            rows = sum(figure.rows for figure in own)
            loss, dense = (
                math.exp(sum(figure.rows * getattr(figure, name) for figure in own) / rows)
                for name in ("loss", "dense")
            )
            said = {"positions": positions, "budget": budget, "selector": selector, "rows": rows}
            table.append(said | {"perplexity": loss, "dense": dense, "more": loss / dense - 1})
        return table


@torch.inference_mode()
def measure_prompts(
    model: Any,
    documents: Iterable[Document],
    densities: Sequence[float],
    gates: Mapping[str, Sequence[Gate | None]],
    references: Sequence[str] = (ORACLE,),
    *,
    block: int,
    sink: bool = True,
    last_blocks: int = LAST_BLOCKS,
    outputs: bool = False,
    lengths: Sequence[int] = (),
    allocation: Allocation | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> PromptFigures:
    """All figures of prefill gates and of others beside them.

    Args:
        model: a causal language model; its attention is patched (idempotent). Layers with a window or without
            attention are as they are, and have no figures.
        documents: held-out; one at a time is in memory.
        densities: shares of the blocks that prompts read.
        gates: gate sets by label, one gate per layer, of prompts or of decoding. A layer without one is dense
            and has no figures.
        references: of ``REFERENCES``.
        block: tokens a block, that of the gates.
        sink: force the first block.
        last_blocks: blocks of rows at the end that are dense.
        outputs: run the model on what is chosen, too.
        lengths: documents are measured cut to each of these, if they are so long; none: as they are.
        allocation: how the gates of ``ALLOCATED`` share each density; figures are then of all rows of which
            one of their heads leaves something out, those of others as well.
        progress: told what is being computed.
    """
    patch_attention(model)
    shape, weight, figures = attention_shape(model), next(model.parameters()), PromptFigures()
    contenders = contenders_of(gates, references, shape, block)
    shared = {density: shared_amounts(density, allocation) for density in densities}

    def sparse(blocks: int, density: float) -> range:
        counts = [Amount(density=density), *shared[density].values()]
        return range(min(amount.count(blocks, sink) for amount in counts), blocks - last_blocks)

    def amounts(name: str, density: float) -> Mapping[int, Amount]:
        return shared[density] if name == ALLOCATED else {}

    for number, (document, positions) in enumerate(prompts_of(documents, lengths), 1):
        length = len(document.tokens)
        tokens = document.tokens.to(weight.device)
        pages = Pages(shape, rope_tables(model, length), length, block, weight, sink)
        blocks = pages.count
        about = {"document": document.id, "source": document.source, "positions": positions}

        def look(layer: int, asked: Attention, maps: BlockMaps, about: Any = about, n: int = blocks) -> None:
            for name, of_layers in contenders.items():
                if (contender := of_layers[layer]) is None:
                    continue
                scores = contender.scores(asked, maps).float()
                for density in densities:
                    rows = sparse(n, density)
                    if not len(rows):
                        continue
                    amount = Amount(density=density)
                    own = amounts(name, density).get(layer, amount)
                    keep = chosen(scores, own, sink, last_blocks)[:, rows]
                    best = chosen(maps.largest.float(), amount, sink, last_blocks)[:, rows]
                    figures.layers.append(
                        LayerFigure(
                            **about,
                            layer=layer,
                            selector=name,
                            budget=f"{density:g}",
                            rows=len(rows),
                            recall=float(((keep & best).sum(-1) / best.sum(-1)).mean()),
                            mass=float((maps.mass[:, rows] * keep).sum(-1).mean()),
                            read=float(keep.sum(-1).float().mean()) * block,
                        )
                    )

        progress(f"document {number}: dense")
        dense = forward_tokens(model, tokens, PromptPass(pages, look))
        if not outputs:
            continue
        dense_loss = losses(model, dense, tokens)
        for name, of_layers in contenders.items():
            for density in densities:
                rows = sparse(blocks, density)
                if not len(rows):
                    continue
                progress(f"document {number}: {name}, density {density:g}")
                amount = Amount(density=density)
                step = PromptPass(pages, None, of_layers, amount, last_blocks, amounts(name, density))
                hidden = forward_tokens(model, tokens, step)
                span = slice(rows.start * block, min(rows.stop * block, length - 1))
                said: dict[str, Any] = about | {"selector": name, "budget": f"{density:g}"}
                said["rows"] = span.stop - span.start
                kl, same = compare(lambda x: logits_of(model, x), dense[span], hidden[span])
                figures.outputs.append(OutputFigure(**said, kl=float(kl.mean()), top1=float(same.mean())))
                loss = losses(model, hidden, tokens)[span]
                figures.losses.append(
                    LossFigure(**said, loss=float(loss.mean()), dense=float(dense_loss[span].mean()))
                )
    return figures


def prompts_of(documents: Iterable[Document], lengths: Sequence[int]) -> Iterator[tuple[Document, str]]:
    """Documents cut to the lengths that they have, each with its figures' positions."""
    for document in documents:
        if not lengths:
            yield document, ALL
        for length in lengths:
            if len(document.tokens) >= length:
                yield dataclasses.replace(document, tokens=document.tokens[:length]), str(length)


def losses(model: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Of every token but the first, in nats, float64 ``[tokens - 1]``."""
    found = []
    for some, following in zip(hidden[:-1].split(LOGIT_ROWS), tokens[1:].split(LOGIT_ROWS), strict=True):
        logits = logits_of(model, some).float()
        found.append(torch.nn.functional.cross_entropy(logits, following.long(), reduction="none"))
    return torch.cat(found).double()
