"""What is measured of models whose own layers run as they are is what the engine decodes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from engines import TinyModel, request, run, tokens
from families import KINDS, make_family
from tiny import tiny_tokenizer

from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.corpora.documents import Document
from seer_ray.engine import Engine
from seer_ray.fidelity.passes import DensePass, Pages, SparsePass
from seer_ray.fidelity.quality import REFERENCES, Rows, measure, selectors_of
from seer_ray.fidelity.sensitivity import measure_layers, price_layers
from seer_ray.fidelity.settings import Setting
from seer_ray.models.limits import Limit
from seer_ray.models.patch import attention_shape, embed, forward_tokens, logits_of, rope_tables, run_layers
from seer_ray.selectors.seer import Seer

BLOCK, BUDGET = 16, 4
DOCUMENT = Document("a", "noise", torch.tensor(tokens(200)))


@cache
def loaded(family: str) -> TinyModel:
    model = make_family(family)
    return TinyModel(model, tiny_tokenizer(), model.config, family, torch.float32, torch.device("cpu"))


def pages_of(family: str, length: int) -> Pages:
    model: Any = loaded(family).model
    return Pages(attention_shape(model), rope_tables(model, length), length, BLOCK, next(model.parameters()))


@pytest.mark.parametrize("family", KINDS)
def test_a_chain_of_the_engine_is_the_best_tokens_of_a_sparse_pass(family: str) -> None:
    """Gates rank; a prompt within the budget reads all there is in either."""
    budget = BUDGET * BLOCK
    engine = Engine(
        loaded(family),
        EngineConfig(block_size=BLOCK, max_batch=1),
        SelectorConfig(name="seer", budget=budget),
    )
    prompt = tokens(50)
    chain = run(engine, [request("a", prompt, 100)])["a"].tokens
    whole = torch.tensor([*prompt, *chain])
    model, gates = loaded(family).model, loaded(family).load_gates(BLOCK)
    selectors = [None if gate is None else Seer(gate) for gate in gates]
    step = SparsePass(pages_of(family, len(whole)), selectors, [Limit(BUDGET)] * len(gates))
    with torch.inference_mode():
        best = logits_of(model, forward_tokens(model, whole, step)).argmax(-1)
    assert best[len(prompt) - 1 : -1].tolist() == list(chain)


@pytest.mark.parametrize("family", KINDS)
def test_figures_are_of_layers_that_select_and_all_blocks_are_dense(family: str) -> None:
    model, gates = loaded(family).model, loaded(family).load_gates(BLOCK)
    budgets = [Setting.of(BUDGET * BLOCK), Setting.of(1024)]
    found = measure(model, [DOCUMENT], budgets, {"seer": gates}, REFERENCES, block_size=BLOCK)
    shape = attention_shape(model)
    assert {row["layer"] for row in found.layer_table("layer")} == set(shape.selecting())
    for row in found.output_table():
        assert (row["kl"] > 1e-4) == (row["budget"] == str(BUDGET * BLOCK)), row


@pytest.mark.parametrize("family", ["qwen3_next", "gpt_oss", "lfm2", "falcon_h1"])
def test_layer_costs_follow_the_error_of_the_layers_output(family: str) -> None:
    """KL as ``gates eval`` has it with that layer sparse alone; errors after the output's own gate."""
    model, gates = loaded(family).model, loaded(family).load_gates(BLOCK)
    rows = Rows(first=0.5, stride=3)
    shape, chosen = attention_shape(model), rows.of(200, torch.device("cpu"))
    how: Any = {"block": BLOCK, "sink": True, "rows": rows}
    ranked = selectors_of("seer", shape, gates)
    prices = price_layers(model, [DOCUMENT], ranked, BUDGET, **how)
    assert list(prices) == shape.selecting()
    found = measure_layers(model, [DOCUMENT], {"seer": ranked}, prices, blocks=(2, BUDGET), **how)["seer"]
    for layer, price in prices.items():
        alone = [gate if index == layer else None for index, gate in enumerate(gates)]
        (row,) = measure(
            model,
            [DOCUMENT],
            [Setting.of(BUDGET * BLOCK)],
            {"seer": alone},
            (),
            block_size=BLOCK,
            rows=rows,
        ).output_table()
        assert price.kl == pytest.approx(row["kl"], rel=1e-3)
        head = tuple(Limit(10**6 if other else 2) for other in range(shape.kv_heads))
        with torch.inference_mode():
            pages = pages_of(family, 200)
            before = run_layers(model, embed(model, DOCUMENT.tokens), DensePass(pages), range(layer))
            one = [ranked[layer] if index == layer else None for index in range(shape.layers)]
            steps = DensePass(pages), SparsePass(pages, one, [Limit(2, heads=head)] * shape.layers)
            dense, sparse = (attention_output(model, layer, before, step)[chosen].double() for step in steps)
        error = float((sparse - dense).square().sum()) / len(chosen)
        assert found[layer].heads[0][2].loss == pytest.approx(price.each * error, rel=1e-3)


def attention_output(model: Any, layer: int, hidden: torch.Tensor, step: Any) -> torch.Tensor:
    """What the layer's attention module makes, ``[tokens, hidden]``."""
    seen: list[torch.Tensor] = []
    (attention,) = {m for m in model.model.layers[layer].modules() if hasattr(m, "k_proj")}
    handle = attention.register_forward_hook(lambda *given: seen.append(given[2][0]))
    run_layers(model, hidden, step, range(layer, layer + 1))
    handle.remove()
    return seen[0].squeeze(0)
