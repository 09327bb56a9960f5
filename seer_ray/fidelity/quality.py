"""How good gates are: what their selections keep of attention, and what that does to the next token.

Teacher-forced on held-out documents, in two ways that should not be confused. *Layer figures*: dense
attention flows through the model, and each layer is asked what its selector would have read. *Output
figures*: the whole model runs on what the selectors give it, every token as a decode step, so that errors of
early layers and tokens reach later ones.

The oracle ranks blocks by their largest probability (that is what gates are distilled to), the mass kept is a
sum of probabilities: a selector may keep a little more mass than the oracle. What bounds it for every
selector is ``best``, which ranks by that sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seer_ray.config.selectors import SELECTORS
from seer_ray.corpora.documents import Document
from seer_ray.fidelity.calibration import LEVELS, Ranked
from seer_ray.fidelity.figures import ALL, CalibrationFigure, Figures, LayerFigure, OutputFigure
from seer_ray.fidelity.passes import DensePass, Layer, Pages, SparsePass
from seer_ray.fidelity.settings import Setting
from seer_ray.models.gate import AttnGate
from seer_ray.models.limits import Limit
from seer_ray.models.patch import (
    AttentionShape,
    attention_shape,
    forward_tokens,
    logits_of,
    patch_attention,
    rope_tables,
)
from seer_ray.selectors.base import Selector
from seer_ray.selectors.make import make_selector
from seer_ray.selectors.seer import Seer

ORACLE, BEST = "oracle", "best"
REFERENCES = (BEST, *(name for name, traits in SELECTORS.items() if traits.sparse and not traits.gates))
"""Selectors that need no gates. ``best`` has layer figures only: nothing decodes with it."""
SHARING = tuple(name for name in REFERENCES if name == BEST or SELECTORS[name].threshold)
"""Those whose scores are shares after a softmax, which a threshold can be compared with."""
SHARP, FLAT = "sharp", "flat"
"""Rows by what attention does in them: see ``LayerQuality.sharp``."""
NEAR = 64
"""Tokens."""
LOGIT_ROWS = 64
"""Rows of next-token logits that are held at a time."""


@dataclass(frozen=True)
class Rows:
    """Which tokens of a document are looked at."""

    first: float = 0.5
    """From this share of the length on."""
    stride: int = 1
    """Every so many; a number that shares no factor with the block size meets all places in a block."""
    beyond: int = 4096
    """Positions from here on are averaged apart as well."""

    def of(self, length: int, device: torch.device) -> Tensor:
        # Not the last one: what comes after a document is in none.
        return torch.arange(int(self.first * length), length - 1, self.stride, device=device)

    def groups(self, rows: Tensor) -> dict[str, Tensor]:
        """Label -> which of ``rows``; never an empty group."""
        far = rows >= self.beyond
        return {ALL: torch.ones_like(far)} | ({f">{self.beyond}": far} if bool(far.any()) else {})


@torch.inference_mode()
def measure(
    model: Any,
    documents: Iterable[Document],
    settings: Sequence[Setting],
    gates: Mapping[str, Sequence[AttnGate | None]],
    references: Sequence[str] = (ORACLE,),
    *,
    block_size: int,
    sink: bool = True,
    dense_layers: int = 0,
    rows: Rows = Rows(),
    outputs: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Figures:
    """All figures of gate sets and of selectors beside them.

    Args:
        model: a causal language model; its attention is patched (idempotent). Layers with a window or without
            attention are as they are, and have no figures.
        documents: held-out; one at a time is in memory.
        settings: what layers may read; those with a threshold or a mass want ``references`` of ``SHARING``.
        gates: gate sets by label, one gate per layer. A layer without one is dense and has no layer figures.
        references: of ``REFERENCES``, by the selector's name.
        block_size: tokens a block, that of the gates.
        sink: force the first block, inside the budget.
        dense_layers: the first so many layers of the sparse models stay dense.
        rows: which tokens count.
        outputs: run the sparse models too; layer figures alone cost one pass a document.
        progress: told what is being computed.
    """
    patch_attention(model)
    shape = attention_shape(model)
    contenders = {label: selectors_of("seer", shape, gate_set) for label, gate_set in gates.items()}
    contenders |= {name: selectors_of(name, shape) for name in references}
    figures, weight = Figures(), next(model.parameters())

    for number, document in enumerate(documents, 1):
        length = len(document.tokens)
        tokens = document.tokens.to(weight.device)
        pages = Pages(shape, rope_tables(model, length), length, block_size, weight, sink)
        chosen = rows.of(length, weight.device)
        limits = {
            setting.label: setting.limits_of(contenders, length, shape.layers, block_size, shape.kv_heads)
            for setting in settings
        }
        groups = rows.groups(chosen)
        progress(f"document {number}: dense")
        look = LayerQuality(document, chosen, groups, limits, contenders, figures)
        dense = forward_tokens(model, tokens, DensePass(pages, look))[chosen]
        if not outputs:
            continue
        groups, kinds = rows.groups(chosen), look.sharp()
        for label, selectors in contenders.items():
            if label == BEST:
                continue
            sparse_layers = [None] * dense_layers + selectors[dense_layers:]
            for budget in (setting for setting, by_label in limits.items() if label in by_label):
                progress(f"document {number}: {label} at {budget}")
                step = SparsePass(pages, sparse_layers, limits[budget][label])
                sparse = forward_tokens(model, tokens, step)[chosen]
                kl, same = compare(partial(logits_of, model), dense, sparse)
                for positions, members in (groups | kinds).items():
                    own = figures.kinds if positions in kinds else figures.outputs
                    own.append(
                        OutputFigure(
                            document.id,
                            document.source,
                            label,
                            budget,
                            positions,
                            int(members.sum()),
                            float(kl[members].mean()),
                            float(same[members].mean()),
                        )
                    )
    return figures


def selectors_of(
    name: str, shape: AttentionShape, gates: Sequence[AttnGate | None] | None = None
) -> list[Selector | None]:
    """A selector in every layer that it can be in; of ``BEST``, which nothing decodes with, none."""
    if gates is not None and SELECTORS[name].gates:
        return [None if gate is None else Seer(gate) for gate in gates]
    selecting = shape.selecting() if name != BEST else ()
    return [
        make_selector(name, layer, shape) if layer in selecting else None for layer in range(shape.layers)
    ]


class LayerQuality:
    """Adds the figures of each layer of a dense pass of which blocks can be selected."""

    def __init__(
        self,
        document: Document,
        rows: Tensor,
        groups: Mapping[str, Tensor],
        limits: Mapping[str, Mapping[str, Sequence[Limit]]],
        contenders: Mapping[str, Sequence[Selector | None]],
        figures: Figures,
    ) -> None:
        self.document, self.rows, self.groups, self.limits = document, rows, groups, limits
        self.contenders, self.figures = contenders, figures
        self.places = torch.zeros(len(rows), device=rows.device)
        """Of each row: query heads of all layers that look at one place."""
        self.sharing = {label for label in contenders if label not in REFERENCES or label in SHARING} - {BEST}

    def __call__(self, layer: Layer) -> None:
        if layer.index not in layer.pages.shape.selecting():
            return
        selectors = {label: each[layer.index] for label, each in self.contenders.items()}
        asked = {label: s for label, s in selectors.items() if s is not None or label == BEST}
        summaries = {label: layer.pages.summarise(s) for label, s in asked.items() if s is not None}
        found: dict[tuple[str, Limit], list[Tensor]] = {}
        calibrated: dict[str, list[Tensor]] = {}
        limits = {
            budget: {label: each[layer.index] for label, each in by_label.items()}
            for budget, by_label in self.limits.items()
        }
        distinct = {one for by_label in limits.values() for one in by_label.values()}
        done = 0
        for rows in layer.chunks(self.rows, logits=True):
            shares = layer.shares(rows)
            self.places[done : done + len(rows)] += _places(shares.mass, rows, layer.pages.block)
            done += len(rows)
            mass = shares.mass.mean(2)  # [rows, kv_heads, blocks]
            oracle = {one: chosen(*layer.select(shares.log_max, rows, one), mass) for one in distinct}
            for label, selector in asked.items():
                scores = layer.scores(selector, rows, summaries[label], shares) if selector else mass.log()
                if label in self.sharing:
                    calibrated.setdefault(label, []).append(
                        self._calibrate(layer, rows, scores, mass, selector)
                    )
                for limit in {by_label[label] for by_label in limits.values() if label in by_label}:
                    page_ids, counts = layer.select(scores, rows, limit, selector)
                    mask = chosen(page_ids, counts, mass)
                    recall = (mask & oracle[limit]).sum(-1).double() / oracle[limit].sum(-1)
                    tails = (rows % layer.pages.block + 1).unsqueeze(1)
                    read = (counts - 1) * layer.pages.block + tails
                    kept = (mass * mask).sum(-1)
                    means = torch.stack([x.double().mean(1) for x in (recall, kept, read)])  # [3, rows]
                    found.setdefault((label, limit), []).append(means)
        for label in asked:
            for budget, by_label in limits.items():
                if label in by_label:
                    self._add(layer.index, label, budget, torch.cat(found[label, by_label[label]], dim=1))
        for label, parts in calibrated.items():
            self._add_calibration(layer.index, label, torch.cat(parts, dim=2))

    def sharp(self) -> dict[str, Tensor]:
        """The quarter of the rows in which most query heads look at one place (``SHARP``), and the others.

        A head looks at one place where it gives half of its attention to one block that is neither the first
        nor among the ``NEAR`` last tokens: where it copies, or answers from what stood there.
        """
        order = self.places.argsort(descending=True, stable=True)
        sharp = torch.zeros_like(order, dtype=torch.bool)
        sharp[order[: len(order) // 4]] = True
        both = {SHARP: sharp, FLAT: ~sharp}
        return {name: members for name, members in both.items() if bool(members.any())}

    def _calibrate(
        self, layer: Layer, rows: Tensor, scores: Tensor, mass: Tensor, selector: Selector | None
    ) -> Tensor:
        """Predicted and kept mass, ``[2, levels, rows]``, of the rows that have a complete block."""
        pages, known = layer.pages, rows + 1 >= layer.pages.block
        ranked = Ranked.of(scores[known], mass[known], rows[known], pages.block, pages.sink)
        sharpness = None if selector is None else selector.sharpness
        sharp = 1.0 if sharpness is None else torch.tensor(sharpness, device=scores.device).unsqueeze(1)
        return ranked.at(sharp).double().mean(3)

    def _add_calibration(self, layer: int, selector: str, values: Tensor) -> None:
        rows = values.shape[2]
        if not rows:
            return
        document = self.document
        for level, predicted, kept in zip(LEVELS, *values.mean(2).tolist(), strict=True):
            self.figures.calibration.append(
                CalibrationFigure(document.id, document.source, layer, selector, level, rows, predicted, kept)
            )

    def _add(self, layer: int, selector: str, budget: str, values: Tensor) -> None:
        for positions, members in self.groups.items():
            recall, mass, read = values[:, members].mean(1).tolist()
            document, rows = self.document, int(members.sum())
            self.figures.layers.append(
                LayerFigure(
                    document.id, document.source, layer, selector, budget, positions, rows, recall, mass, read
                )
            )


def _places(mass: Tensor, rows: Tensor, block: int) -> Tensor:
    """Query heads that look at one place: see ``LayerQuality.sharp``; ``mass`` as in ``Shares``."""
    index = torch.arange(mass.shape[-1], device=mass.device)
    far = (index > 0) & ((index + 1) * block <= (rows + 1 - NEAR).unsqueeze(1))
    return (mass.masked_fill(~far[:, None, None], 0.0).amax(-1) > 0.5).sum((1, 2)).float()


def chosen(page_ids: Tensor, counts: Tensor, like: Tensor) -> Tensor:
    """A selection as a mask ``[rows, kv_heads, blocks]``, the shape of ``like``."""
    valid = torch.arange(page_ids.shape[2], device=page_ids.device) < counts.unsqueeze(2)
    hits = torch.zeros(like.shape, device=like.device)
    # Slots past the count name any page: they add nothing to page 0.
    return hits.scatter_add_(2, page_ids.where(valid, 0), valid.float()) > 0


def compare(head: Callable[[Tensor], Tensor], dense: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """KL(dense || sparse) of the next-token distributions in nats, and whether the best token is the same.

    Args:
        head: hidden states to logits.
        dense, sparse: normalised hidden states, ``[rows, hidden]``.

    Returns:
        Two tensors ``[rows]``.
    """
    kl, same = [], []
    for pair in zip(dense.split(LOGIT_ROWS), sparse.split(LOGIT_ROWS), strict=True):
        p, q = (torch.log_softmax(head(hidden).float(), dim=-1) for hidden in pair)
        kl.append((p.exp() * (p - q)).sum(-1))
        same.append(p.argmax(-1) == q.argmax(-1))
    return torch.cat(kl).double(), torch.cat(same).double()
