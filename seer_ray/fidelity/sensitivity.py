"""What it costs the next token that one layer reads less, and what it would read instead.

Small errors of several layers add up: the KL of the next token with all layers sparse is close to the sum of
the KLs with each layer sparse alone (both are second-order in the errors of the layers' outputs). That sum
is what a division of the budget should make small. A layer's own KL is measured at one budget and follows
the squared error of its attention output at the others, which one dense pass gives for all of them. In the
same way the KV heads of a layer add up, each with the error of its own group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.allotment import Cost
from seer_ray.fidelity.passes import DensePass, Layer, Pages, SparsePass
from seer_ray.fidelity.quality import Rows, compare
from seer_ray.kernels.attend import attend
from seer_ray.models.families import family_of
from seer_ray.models.gate import AttnGate
from seer_ray.models.limits import Limit
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
from seer_ray.selectors.seer import Seer

SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
THRESHOLDS = tuple(2 ** (-half / 2) for half in range(2, 29))
"""1/2 to 1/16384, by factors of the square root of 2."""
MASSES = tuple(1 - 2 ** (-half / 2) for half in range(1, 20))
"""0.29 to 0.9986: what they leave out, by factors of the square root of 2."""


class Allowance(NamedTuple):
    """Of one layer, or one KV head."""

    kind: Literal["share", "threshold", "mass"]
    """A share of the budget, or a threshold or a mass under a cap."""
    value: float


ALIKE = Allowance("share", 1.0)


@dataclass
class LayerCosts:
    """Of one layer, means over documents."""

    kl: float = 0.0
    """With this layer sparse alone at the plain budget, nats a row."""
    costs: dict[Allowance, Cost] = field(default_factory=dict)
    """KV tokens read, and the KL that follows from the error of the attention output."""
    heads: list[dict[Allowance, Cost]] = field(default_factory=list)
    """The same of each KV head; the losses of all at the plain budget sum to ``kl``."""


@torch.inference_mode()
def measure_layers(
    model: Any,
    documents: Sequence[Document],
    gates: Sequence[AttnGate | None],
    budget: int,
    *,
    cap: float,
    sink: bool,
    rows: Rows,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[int, LayerCosts]:
    """What each layer that has a gate costs, for every setting.

    Half a pass of the model for each layer and document.

    Args:
        model: a causal language model; its attention is patched (idempotent).
        documents: one at a time is in memory; their rows lie beyond the budget.
        gates: one per layer; layers without one stay dense and are left out.
        budget: blocks.
        cap: most blocks that a threshold or a mass lets through, as a multiple of the budget.
        sink: force the first block, inside the budget.
        rows: which tokens count.
        progress: told what is being computed.
    """
    patch_attention(model)
    shape, weight = attention_shape(model), next(model.parameters())
    selectors = {layer: Seer(gate) for layer, gate in enumerate(gates) if gate is not None}
    block = next(gate.block_size for gate in gates if gate is not None)
    # A run takes no share of less than two blocks.
    settings = [Allowance("share", value) for value in SHARES if budget * value >= 2]
    settings += [Allowance("threshold", value) for value in THRESHOLDS]
    settings += [Allowance("mass", value) for value in MASSES]
    limits = {setting: limit_of(setting, budget, cap) for setting in settings}
    found = {layer: LayerCosts() for layer in selectors}
    for number, document in enumerate(documents, 1):
        length, tokens = len(document.tokens), document.tokens.to(weight.device)
        pages = Pages(shape, rope_tables(model, length), length, block, weight, sink)
        chosen = rows.of(length, weight.device)
        progress(f"document {number}: dense")
        dense = forward_tokens(model, tokens, DensePass(pages))[chosen]
        hidden = embed(model, tokens)
        for index in range(shape.layers):
            this = range(index, index + 1)
            before = hidden
            if index not in selectors:
                hidden = run_layers(model, hidden, DensePass(pages), this)
                continue
            errors = OutputErrors(selectors[index], chosen, limits)
            with Taken(model, index) as taken:
                hidden = run_layers(model, hidden, DensePass(pages, errors.look), this)
            errors.measure(taken)
            progress(f"document {number}: layer {index} alone")
            alone = [selectors[index] if one == index else None for one in range(shape.layers)]
            step = SparsePass(pages, alone, [limits[ALIKE]] * shape.layers)
            after = run_layers(model, before, step, range(index, shape.layers))
            sparse = normalise(model, after)[chosen]
            kl = float(compare(partial(logits_of, model), dense, sparse)[0].mean())
            _add(found[index], kl, errors, len(documents))
    return found


def limit_of(setting: Allowance, budget: int, cap: float) -> Limit:
    """Of a layer with this setting, where the plain budget is ``budget`` blocks."""
    if setting.kind == "share":
        return Limit(round(budget * setting.value))
    if setting.kind == "threshold":
        return Limit(round(budget * cap), threshold=setting.value)
    return Limit(round(budget * cap), mass=setting.value)


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
    """The squared error that each limit makes in a layer's attention output, and what it reads."""

    def __init__(self, selector: Seer, rows: Tensor, limits: Mapping[Allowance, Limit]) -> None:
        self.selector, self.rows, self.limits = selector, rows, limits
        self.layer: Layer | None = None
        self.sums: dict[Allowance, Tensor] = {}
        """KV tokens read and squared error: of the layer, then of each KV head, ``[1 + kv_heads, 2]``."""

    def look(self, layer: Layer) -> None:
        """Keeps the layer, for ``measure``."""
        self.layer = layer

    def measure(self, taken: Taken) -> None:
        """Of the layer that has just run, as long as the pages hold its keys."""
        layer, selector = self.layer, self.selector
        assert layer is not None
        pages, summary, dense = layer.pages, layer.pages.summarise(selector), layer.dense()
        # A gate of the output multiplies it: the quotient is what an error is multiplied by as well.
        gains = None if taken.given is None else (taken.given / dense.flatten(1)).nan_to_num(0.0, 0.0, 0.0)
        heads = pages.shape.kv_heads
        for rows in layer.chunks(self.rows, logits=False):
            scores, tails = layer.scores(selector, rows, summary), rows % pages.block + 1
            for setting, limit in self.limits.items():
                page_ids, counts = layer.select(scores, rows, limit, selector)
                sparse = attend(
                    layer.q[rows],
                    pages.kv,
                    page_ids,
                    counts,
                    tails,
                    layer.asked.scale,
                    sinks=layer.asked.sinks,
                )
                difference = (sparse - dense[rows]).flatten(1)
                if gains is not None:
                    difference = difference * gains[rows]
                # Without the bias: it is in both.
                parts = torch.einsum(
                    "rhi,ohi->hro",
                    difference.unflatten(1, (heads, -1)),
                    taken.weight.unflatten(1, (heads, -1)),
                )
                errors = torch.stack([x.double().square().sum() for x in (parts.sum(0), *parts)])
                read = ((counts - 1) * pages.block + tails.unsqueeze(1)).double().sum(0)  # [kv_heads]
                sums = torch.stack([torch.cat([read.mean(0, keepdim=True), read]), errors], dim=1)
                self.sums[setting] = self.sums.get(setting, 0) + sums

    def means(self, place: int = 0) -> dict[Allowance, tuple[float, float]]:
        """KV tokens read and squared error, a row; ``place``: 0 the layer, from 1 on its KV heads."""
        return {
            setting: tuple((sums[place] / len(self.rows)).tolist()) for setting, sums in self.sums.items()
        }


def _add(costs: LayerCosts, kl: float, errors: OutputErrors, documents: int) -> None:
    """One document's; its KL at the plain budget says what its errors weigh."""
    whole, *heads = (errors.means(place) for place in range(len(errors.sums[ALIKE])))
    costs.kl += kl / documents
    _weigh(costs.costs, kl, whole[ALIKE][1], whole, documents)
    costs.heads = costs.heads or [{} for _ in heads]
    plain = sum(means[ALIKE][1] for means in heads)
    for own, means in zip(costs.heads, heads, strict=True):
        _weigh(own, kl, plain, means, documents)


def _weigh(
    costs: dict[Allowance, Cost],
    kl: float,
    plain: float,
    means: Mapping[Allowance, tuple[float, float]],
    documents: int,
) -> None:
    """Adds one document's, of which an error of ``plain`` comes to ``kl``."""
    weight = kl / plain if plain else 0.0
    for setting, (read, error) in means.items():
        before = costs.get(setting, Cost(0.0, 0.0))
        costs[setting] = Cost(before.read + read / documents, before.loss + weight * error / documents)
