"""What a layer costs: against ``gates eval`` with that layer sparse alone, and explicit attention outputs."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from engines import tiny_model, tokens
from torch import Tensor

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.division import share, spending
from seer_ray.fidelity.passes import DensePass, Pages, SparsePass
from seer_ray.fidelity.quality import Rows, measure, selectors_of
from seer_ray.fidelity.sensitivity import LayerCosts, Price, ladder, measure_layers, price_layers
from seer_ray.fidelity.settings import Setting
from seer_ray.models.limits import Limit
from seer_ray.models.patch import attention_shape, rope_tables, run_layers

BLOCK, BUDGET = 16, 5
DOCUMENTS = [
    Document(name, "noise", torch.tensor(tokens(length, seed)))
    for name, length, seed in (("a", 330, 0), ("b", 250, 1))
]
ROWS = Rows(first=0.5, stride=3)


def gates() -> Any:
    return tiny_model("qwen3").load_gates(BLOCK)


def selectors(gate_set: Any) -> list[Any]:
    return selectors_of("seer", attention_shape(tiny_model("qwen3").model), gate_set)


def prices(gate_set: Any, documents: list[Document] = DOCUMENTS, **options: Any) -> dict[int, Price]:
    model = tiny_model("qwen3").model
    how: Any = {"block": BLOCK, "sink": True, "rows": ROWS, **options}
    return price_layers(model, documents, selectors(gate_set), BUDGET, **how)


def costs(
    gate_set: Any, documents: list[Document] = DOCUMENTS, blocks: tuple[int, ...] = (3, BUDGET, 10)
) -> dict[int, LayerCosts]:
    model = tiny_model("qwen3").model
    known = prices(gate_set, documents)
    how: Any = {"block": BLOCK, "blocks": blocks, "sink": True, "rows": ROWS}
    return measure_layers(model, documents, {"seer": selectors(gate_set)}, known, **how)["seer"]


def test_kl_and_reads_are_those_of_an_evaluation() -> None:
    """KL with the other layer dense; tokens read with that budget everywhere."""
    found, alone_costs = prices(gates()), costs(gates())
    model = tiny_model("qwen3").model
    for layer in range(2):
        alone = [gate if index == layer else None for index, gate in enumerate(gates())]
        budget = [Setting.of(BUDGET * BLOCK)]
        rows = [
            measure(model, [one], budget, {"seer": alone}, (), block_size=BLOCK, rows=ROWS).output_table()[0]
            for one in DOCUMENTS
        ]
        kl = sum(row["kl"] for row in rows) / 2
        assert found[layer].kl == pytest.approx(kl, rel=1e-3)
        heads = alone_costs[layer].heads
        assert sum(own[BUDGET].loss for own in heads) == pytest.approx(kl, rel=1e-3)
        for blocks in (3, 10):
            figures = measure(
                model,
                DOCUMENTS[:1],
                [Setting.of(blocks * BLOCK)],
                {"seer": gates()},
                (),
                block_size=BLOCK,
                rows=ROWS,
                outputs=False,
            )
            (row,) = [row for row in figures.layer_table("layer") if row["layer"] == layer]
            first = costs(gates(), DOCUMENTS[:1])[layer]
            assert sum(own[blocks].read for own in first.heads) / 2 == pytest.approx(row["read"])


def attention_outputs(layer: int, step: Any) -> Tensor:
    """What the layer's attention adds to the residual, with dense layers before it."""
    model: Any = tiny_model("qwen3").model
    seen: list[Tensor] = []
    hidden = model.model.embed_tokens(DOCUMENTS[0].tokens).unsqueeze(0)
    pages = Pages(attention_shape(model), rope_tables(model, 330), 330, BLOCK, next(model.parameters()))
    hidden = run_layers(model, hidden, DensePass(pages), range(layer))
    attention = model.model.layers[layer].self_attn
    handle = attention.register_forward_hook(lambda *given: seen.append(given[2][0]))
    run_layers(model, hidden, step(pages), range(layer, layer + 1))
    handle.remove()
    return seen[0][0].double()


@torch.inference_mode()
def test_losses_of_heads_follow_the_error_of_the_attention_output_of_each_alone() -> None:
    found, known = costs(gates(), DOCUMENTS[:1]), prices(gates(), DOCUMENTS[:1])
    chosen = ROWS.of(330, torch.device("cpu"))
    for layer in range(2):
        dense = attention_outputs(layer, DensePass)
        for head, blocks in itertools.product(range(2), (3, 10)):
            heads = tuple(Limit(blocks if each == head else 10**6) for each in range(2))
            limits = [Limit(blocks, heads=heads)] * 2
            step = partial(SparsePass, selectors=selectors(gates()), limits=limits)
            error = float((attention_outputs(layer, step) - dense)[chosen].square().sum()) / len(chosen)
            expected = known[layer].each * error
            assert found[layer].heads[head][blocks].loss == pytest.approx(expected, rel=1e-3)


def test_layers_without_gates_are_left_out() -> None:
    assert list(costs((None, gates()[1]))) == [1]
    told: list[str] = []
    prices(gates(), DOCUMENTS[:1], progress=told.append)
    assert told == ["document 1: dense", "document 1: layer 0 alone", "document 1: layer 1 alone"]


def test_a_budget_that_reads_all_costs_nothing() -> None:
    short = [Document("c", "noise", torch.tensor(tokens(60)))]
    assert [price.kl for price in prices(gates(), short).values()] == [0, 0]
    found = costs(gates(), short, blocks=(4, 20))
    assert all(own[blocks].loss == 0 for own in found[0].heads for blocks in (4, 20))


def test_a_ladder_begins_with_the_least_and_ends_with_the_most() -> None:
    assert ladder(20) == [2, 3, 4, 6, 8, 11, 16, 20]
    assert ladder(2) == [2]


def test_heads_that_lose_more_get_more_of_every_mean() -> None:
    """Found by selector, with as many reads as if all had the mean."""
    model, means = tiny_model("qwen3").model, [4, 8]
    shape = attention_shape(model)
    names = ("seer", "quest", "window")
    ranked = {name: selectors_of(name, shape, gates()) for name in names}
    how: Any = {"price_length": 250, "block": BLOCK, "sink": True, "rows": ROWS}
    found = share(model, DOCUMENTS, ranked, means, **how)
    assert list(found.allocations) == list(names) and len(found.prices) == 2
    for name, allocation in found.allocations.items():
        assert (allocation.layers, allocation.budgets) == ((0, 1), (4 * BLOCK, 8 * BLOCK))
        for spent in spending(name, found.costs[name], allocation, BLOCK):
            plain = spent.budget // BLOCK
            heads = [own for one in found.costs[name].values() for own in one.heads]
            read = sum(own[plain].read for own in heads) / len(heads)
            assert 0.8 * read < spent.read <= read * (1 + 1e-9)
            assert 0 < spent.kl <= spent.uniform * (1 + 1e-9)
            assert sum(spent.layers) / 2 == pytest.approx(spent.read)
