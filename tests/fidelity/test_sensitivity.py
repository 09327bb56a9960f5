"""What a layer costs: against ``gates eval`` with that layer sparse alone, and explicit attention outputs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from engines import tiny_model, tokens
from torch import Tensor

from seer_ray.config.options import SelectorConfig
from seer_ray.corpora.documents import Document
from seer_ray.fidelity.passes import DensePass, Pages, SparsePass
from seer_ray.fidelity.quality import Rows, measure
from seer_ray.fidelity.sensitivity import (
    ALIKE,
    MASSES,
    SHARES,
    THRESHOLDS,
    Allowance,
    LayerCosts,
    limit_of,
    measure_layers,
)
from seer_ray.fidelity.settings import Setting
from seer_ray.models.patch import attention_shape, rope_tables, run_layers
from seer_ray.selectors.seer import Seer

BLOCK, BUDGET, CAP = 16, 5, 2.0
DOCUMENTS = [
    Document(name, "noise", torch.tensor(tokens(length, seed)))
    for name, length, seed in (("a", 330, 0), ("b", 250, 1))
]
ROWS = Rows(first=0.5, stride=3)


def gates() -> Any:
    return tiny_model("qwen3").load_gates(BLOCK)


def costs(gate_set: Any, documents: list[Document] = DOCUMENTS, **options: Any) -> dict[int, LayerCosts]:
    model = tiny_model("qwen3").model
    return measure_layers(model, documents, gate_set, BUDGET, cap=CAP, sink=True, rows=ROWS, **options)


def test_kl_and_reads_are_those_of_an_evaluation() -> None:
    """KL with the other layer dense; tokens read with that share or threshold everywhere."""
    found = costs(gates())
    model = tiny_model("qwen3").model
    for layer in range(2):
        alone = [gate if index == layer else None for index, gate in enumerate(gates())]
        budget = [Setting.of(BUDGET * BLOCK)]
        rows = [
            measure(model, [one], budget, {"seer": alone}, (), block_size=BLOCK, rows=ROWS).output_table()[0]
            for one in DOCUMENTS
        ]
        assert found[layer].kl == pytest.approx(sum(row["kl"] for row in rows) / 2, rel=1e-3)
        assert found[layer].costs[ALIKE].loss == pytest.approx(found[layer].kl)
        for setting, selector in (
            (Allowance("share", 2.0), SelectorConfig(shares={"0-1": 2.0})),
            (Allowance("threshold", THRESHOLDS[6]), SelectorConfig(threshold=THRESHOLDS[6])),
            (Allowance("mass", MASSES[5]), SelectorConfig(mass=MASSES[5])),
        ):
            cap = 1 if setting.kind == "share" else CAP
            figures = measure(
                model,
                DOCUMENTS[:1],
                [replace(Setting.of(int(BUDGET * BLOCK * cap)), selector=selector)],
                {"seer": gates()},
                (),
                block_size=BLOCK,
                rows=ROWS,
                outputs=False,
            )
            (row,) = [row for row in figures.layer_table("layer") if row["layer"] == layer]
            first = costs(gates(), DOCUMENTS[:1])[layer]
            assert first.costs[setting].read == pytest.approx(row["read"])
            assert sum(own[setting].read for own in first.heads) / 2 == pytest.approx(row["read"])


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
def test_losses_follow_the_error_of_the_attention_output() -> None:
    found = costs(gates(), DOCUMENTS[:1])
    chosen = ROWS.of(330, torch.device("cpu"))
    selectors = [Seer(gate) for gate in gates()]
    for layer in range(2):
        dense = attention_outputs(layer, DensePass)
        errors = {}
        for setting in (
            ALIKE,
            Allowance("share", 0.5),
            Allowance("share", 2.0),
            Allowance("threshold", THRESHOLDS[7]),
        ):
            limits = [limit_of(setting, BUDGET, CAP)] * 2
            sparse = attention_outputs(layer, partial(SparsePass, selectors=selectors, limits=limits))
            errors[setting] = float((sparse - dense)[chosen].square().sum())
        for setting, error in errors.items():
            expected = found[layer].kl * error / errors[ALIKE]
            assert found[layer].costs[setting].loss == pytest.approx(expected, rel=1e-3)


@torch.inference_mode()
def test_heads_share_the_loss_of_their_layer_by_the_error_of_each_alone() -> None:
    found = costs(gates(), DOCUMENTS[:1])
    chosen, setting = ROWS.of(330, torch.device("cpu")), Allowance("mass", MASSES[3])
    for layer in range(2):
        assert sum(own[ALIKE].loss for own in found[layer].heads) == pytest.approx(found[layer].kl)
        dense, errors = attention_outputs(layer, DensePass), {}
        for head in range(2):
            for one in (ALIKE, setting):
                limit = limit_of(one, BUDGET, CAP)
                everything = limit._replace(blocks=10**6, threshold=None, mass=None)
                if limit.mass is not None:
                    everything = everything._replace(mass=0.99999999)
                heads = tuple(limit if each == head else everything for each in range(2))
                limits = [limit._replace(heads=heads)] * 2
                selectors = [Seer(gate) for gate in gates()]
                sparse = attention_outputs(layer, partial(SparsePass, selectors=selectors, limits=limits))
                errors[head, one] = float((sparse - dense)[chosen].square().sum())
        plain = sum(errors[head, ALIKE] for head in range(2))
        for (head, one), error in errors.items():
            expected = found[layer].kl * error / plain
            assert found[layer].heads[head][one].loss == pytest.approx(expected, rel=2e-2)


def test_layers_without_gates_and_settings_below_two_blocks_are_left_out() -> None:
    found = costs((None, gates()[1]))
    assert list(found) == [1]
    assert {setting.value for setting in found[1].costs if setting.kind == "share"} == {
        share for share in SHARES if share * BUDGET >= 2
    }
    told: list[str] = []
    costs(gates(), DOCUMENTS[:1], progress=told.append)
    assert told == ["document 1: dense", "document 1: layer 0 alone", "document 1: layer 1 alone"]


def test_a_budget_that_reads_all_costs_nothing() -> None:
    short = [Document("c", "noise", torch.tensor(tokens(60)))]
    found = costs(gates(), short)
    assert found[0].kl == found[0].costs[ALIKE].loss == found[0].costs[Allowance("share", 4.0)].loss == 0
