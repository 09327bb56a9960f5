"""How good prefill gates are: what prompts keep of attention at a density, and the next token with that.

On held-out documents, each a prompt of its own. *Layer figures*: dense attention flows through the model, and
each layer is asked what its blocks of rows would have read. *Output figures*: the whole model runs on that.
Figures are of the rows that read sparsely: not of those that have no more blocks than are read, nor of the
last blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.figures import ALL, Figures, LayerFigure, OutputFigure
from seer_ray.fidelity.passes import Pages
from seer_ray.fidelity.quality import BEST, ORACLE, compare
from seer_ray.kernels.block_target import BlockMaps, attend_with_blocks
from seer_ray.kernels.blocks import Amount, listed, select_blocks
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.prefill import prefill
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import (
    attention_shape,
    forward_tokens,
    logits_of,
    patch_attention,
    rope_tables,
)
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.recurrence import Run, recur_apart
from seer_ray.models.step import Attention

WINDOW = "window"
REFERENCES = (ORACLE, BEST, WINDOW)
"""Beside gates: the largest probability of a pair of blocks, their mass, and the most recent blocks (with the
first: A-shape)."""
LAST_BLOCKS = 2
LOGIT_ROWS = 64
"""Rows of next-token logits that are held at a time."""

Gate = PrefillGate | AttnGate
"""A decode gate stands for its mean over the rows of a block."""
Scores = Callable[[Attention, BlockMaps | None], Tensor]
"""What a layer asks, and its maps where they are wanted -> ``[q_heads, q_blocks, k_blocks]``."""


@dataclass(frozen=True)
class LossFigure:
    """Next-token loss of one document's rows, in nats."""

    document: str
    source: str
    selector: str
    budget: str
    """The density."""
    rows: int
    loss: float
    dense: float
    """Of the same rows, with dense attention."""


@dataclass
class PromptFigures(Figures):
    """All of one measurement. Budgets are densities."""

    losses: list[LossFigure] = field(default_factory=list)

    def loss_table(self) -> list[dict[str, Any]]:
        """By density and selector: perplexity, that of dense attention, and how much larger it is."""
        groups: dict[tuple[str, str], list[LossFigure]] = {}
        for figure in self.losses:
            groups.setdefault((figure.budget, figure.selector), []).append(figure)
        table = []
        for (budget, selector), own in groups.items():
            rows = sum(figure.rows for figure in own)
            loss, dense = (
                math.exp(sum(figure.rows * getattr(figure, name) for figure in own) / rows)
                for name in ("loss", "dense")
            )
            said = {"positions": ALL, "budget": budget, "selector": selector, "rows": rows}
            table.append(said | {"perplexity": loss, "dense": dense, "more": loss / dense - 1})
        return table


class Contender:
    """A way to choose blocks, in one layer."""

    def __init__(self, name: str, gate: Gate | None, block: int) -> None:
        self.name, self.gate, self.block = name, gate, block

    @property
    def wants_maps(self) -> bool:
        return self.gate is None and self.name != WINDOW

    def scores(self, asked: Attention, maps: BlockMaps | None) -> Tensor:
        """``[q_heads, q_blocks, k_blocks]``, fp32; entries of later keys mean nothing."""
        gate, heads = self.gate, asked.q.shape[1]
        blocks = -(-len(asked.q) // self.block)
        if gate is None and self.name == WINDOW:
            return torch.arange(blocks, device=asked.q.device).float().expand(heads, blocks, blocks)
        if gate is None:
            assert maps is not None
            return maps.mass if self.name == BEST else maps.largest
        if isinstance(gate, PrefillGate):
            return gate.score(asked.q, asked.k)
        return averaged(gate, asked, blocks)


def averaged(gate: AttnGate, asked: Attention, blocks: int) -> Tensor:
    """The mean over the rows of a block of what a decode gate says of blocks that are complete; the last
    block, if it is open, has no score."""
    block, tokens = gate.block_size, len(asked.q)
    position = torch.arange(tokens, device=asked.q.device)
    queries = gate.gate_query(asked.q, position)
    own = position // block
    mean = queries.new_zeros(blocks, *queries.shape[1:]).index_add_(0, own, queries)
    mean /= torch.bincount(own, minlength=blocks).view(-1, 1, 1)
    keys = gate.compress_keys(asked.k.unsqueeze(0))[0]
    scores = torch.einsum("nhd,mhd->hnm", mean, keys)
    scores = torch.nn.functional.pad(scores, (0, blocks - len(keys)), value=float("-inf"))
    return scores.repeat_interleave(asked.q.shape[1] // scores.shape[0], 0)


class PromptPass:
    """A ``Step``: a document as a prompt. ``look`` may see every layer beside dense attention; with a
    contender for each layer, those read what it chooses."""

    def __init__(
        self,
        pages: Pages,
        look: Callable[[int, Attention, BlockMaps], None] | None = None,
        contenders: Sequence[Contender | None] = (),
        amount: Amount | None = None,
        last_blocks: int = LAST_BLOCKS,
    ) -> None:
        self.pages, self.position = pages, pages.positions
        self.look, self.contenders, self.amount, self.last_blocks = look, contenders, amount, last_blocks

    def recur(self, layer: int, hidden: Tensor, run: Run) -> Tensor:
        """See ``models.step``."""
        return recur_apart(hidden, [self.pages.length], run)

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``."""
        pages = self.pages
        rotated = pages.write(layer, asked)
        contender = self.contenders[layer] if self.contenders else None
        if pages.reach is not None or (self.look is None and contender is None):
            return pages.dense(rotated, asked.scale, asked.sinks)
        maps = None
        if self.look is not None or (contender is not None and contender.wants_maps):
            k = pages.kv[:, :, 0].transpose(1, 2).flatten(0, 1)[: pages.length]
            v = pages.kv[:, :, 1].transpose(1, 2).flatten(0, 1)[: pages.length]
            out, maps = attend_with_blocks(rotated, k, v, pages.block, asked.scale, asked.sinks)
        if self.look is not None:
            assert maps is not None
            self.look(layer, asked, maps)
            return out
        assert contender is not None and self.amount is not None
        scores = contender.scores(asked, maps)
        keep = chosen(scores, self.amount, pages.sink, self.last_blocks)
        chunk = Chunks(((0, pages.length),), pages.table.unsqueeze(0), pages.block)
        selection = listed(keep, pages.table)
        return prefill(rotated, pages.kv, chunk, asked.scale, *selection, sinks=asked.sinks)


def chosen(scores: Tensor, amount: Amount, sink: bool, last_blocks: int) -> Tensor:
    """What a whole prompt reads, ``[q_heads, q_blocks, k_blocks]`` bool; its last rows everything."""
    blocks = scores.shape[2]
    own = torch.arange(blocks, device=scores.device)
    keep = select_blocks(scores.float(), own, blocks, amount, sink)
    late = (own >= blocks - last_blocks).unsqueeze(1) & (own <= own.unsqueeze(1))
    return keep | late


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
        progress: told what is being computed.
    """
    patch_attention(model)
    shape, weight, figures = attention_shape(model), next(model.parameters()), PromptFigures()
    contenders: dict[str, list[Contender | None]] = {
        label: [None if gate is None else Contender(label, gate, block) for gate in of_layers]
        for label, of_layers in gates.items()
    }
    for name in references:
        contenders[name] = [
            Contender(name, None, block) if layer in shape.selecting() else None
            for layer in range(shape.layers)
        ]
    for number, document in enumerate(documents, 1):
        length = len(document.tokens)
        tokens = document.tokens.to(weight.device)
        pages = Pages(shape, rope_tables(model, length), length, block, weight, sink)
        blocks = pages.count
        about = {"document": document.id, "source": document.source}

        def look(layer: int, asked: Attention, maps: BlockMaps, about: Any = about, n: int = blocks) -> None:
            for name, of_layers in contenders.items():
                if (contender := of_layers[layer]) is None:
                    continue
                scores = contender.scores(asked, maps).float()
                for density in densities:
                    rows = sparse_blocks(n, density, sink, last_blocks)
                    if not len(rows):
                        continue
                    amount = Amount(density=density)
                    keep = chosen(scores, amount, sink, last_blocks)[:, rows]
                    best = chosen(maps.largest.float(), amount, sink, last_blocks)[:, rows]
                    figures.layers.append(
                        LayerFigure(
                            **about,
                            layer=layer,
                            selector=name,
                            budget=f"{density:g}",
                            positions=ALL,
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
                rows = sparse_blocks(blocks, density, sink, last_blocks)
                if not len(rows):
                    continue
                progress(f"document {number}: {name}, density {density:g}")
                amount = Amount(density=density)
                step = PromptPass(pages, None, of_layers, amount, last_blocks)
                hidden = forward_tokens(model, tokens, step)
                span = slice(rows.start * block, min(rows.stop * block, length - 1))
                said: dict[str, Any] = about | {"selector": name, "budget": f"{density:g}"}
                said["rows"] = span.stop - span.start
                kl, same = compare(lambda x: logits_of(model, x), dense[span], hidden[span])
                figures.outputs.append(
                    OutputFigure(**said, positions=ALL, kl=float(kl.mean()), top1=float(same.mean()))
                )
                loss = losses(model, hidden, tokens)[span]
                figures.losses.append(
                    LossFigure(**said, loss=float(loss.mean()), dense=float(dense_loss[span].mean()))
                )
    return figures


def sparse_blocks(blocks: int, density: float, sink: bool, last_blocks: int) -> range:
    """Blocks of rows of a prompt that leave something out."""
    return range(Amount(density=density).count(blocks, sink), blocks - last_blocks)


def losses(model: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Of every token but the first, in nats, float64 ``[tokens - 1]``."""
    found = []
    for some, following in zip(hidden[:-1].split(LOGIT_ROWS), tokens[1:].split(LOGIT_ROWS), strict=True):
        logits = logits_of(model, some).float()
        found.append(torch.nn.functional.cross_entropy(logits, following.long(), reduction="none"))
    return torch.cat(found).double()
