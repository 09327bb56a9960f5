"""What prompts keep at a density, against masks written out; and what the next token loses."""

from __future__ import annotations

import math

import pytest
import torch
from engines import tokens
from tiny import make_tiny

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.prompt_passes import REFERENCES, SHARED, Contender
from seer_ray.fidelity.prompts import measure_prompts
from seer_ray.kernels.blocks import Amount, select_blocks
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates
from seer_ray.models.prefill_gates import PrefillGateConfig, init_prefill_gates
from seer_ray.models.step import Attention

BLOCK, LENGTH, DENSITIES = 16, 300, [1.0, 0.4, 0.2]


def document(seed: int = 0) -> Document:
    return Document(str(seed), "made", torch.tensor(tokens(LENGTH, seed), dtype=torch.int32))


@pytest.fixture(scope="module")
def figures():
    model = make_tiny("qwen3")
    gates = {
        "prefill": init_prefill_gates(model.config, PrefillGateConfig(BLOCK, 16), 1),
        "decode": init_gates(model.config, GateConfig(BLOCK, 8), 1),
    }
    documents = [document(0), document(1)]
    return measure_prompts(model, documents, DENSITIES, gates, REFERENCES, block=BLOCK, outputs=True)


def test_mass_of_the_oracle_is_that_of_whole_maps(figures) -> None:
    model = make_tiny("qwen3")
    model.set_attn_implementation("eager")
    blocks, last = -(-LENGTH // BLOCK), 2
    with torch.no_grad():
        maps = model(document().tokens[None].long(), output_attentions=True).attentions
    for density in (0.4, 0.2):
        rows = range(Amount(density=density).count(blocks), blocks - last)
        for layer, p in enumerate(maps):
            padded = torch.nn.functional.pad(p[0], (0, blocks * BLOCK - LENGTH, 0, blocks * BLOCK - LENGTH))
            pairs = padded.unflatten(2, (blocks, BLOCK)).unflatten(1, (blocks, BLOCK))
            largest, mass = pairs.amax((2, 4)), pairs.sum(4).mean(2)
            keep = select_blocks(largest, torch.arange(blocks), blocks, Amount(density=density))
            expected = float((mass * keep)[:, rows].sum(-1).mean())
            (found,) = [
                figure
                for figure in figures.layers
                if (figure.document, figure.layer, figure.selector) == ("0", layer, "oracle")
                and figure.budget == f"{density:g}"
            ]
            assert found.mass == pytest.approx(expected, rel=1e-4)
            assert (found.recall, found.rows) == (1.0, len(rows))
            assert found.read == Amount(density=density).count(blocks) * BLOCK


def test_the_best_keeps_the_most_and_reads_as_much(figures) -> None:
    table = {(row["budget"], row["selector"]): row for row in figures.layer_table()}
    for density in ("0.4", "0.2"):
        for name in ("prefill", "decode", "oracle", "window"):
            assert table[density, name]["mass"] <= table[density, "best"]["mass"] + 1e-6
            assert table[density, name]["read"] == table[density, "best"]["read"]
    assert not any(budget == "1" for budget, _ in table)  # nothing is left out there


def test_perplexity_is_that_of_the_rows(figures) -> None:
    table = {(row["budget"], row["selector"]): row for row in figures.loss_table()}
    blocks = -(-LENGTH // BLOCK)
    model, logs = make_tiny("qwen3"), []
    for seed in (0, 1):
        ids = document(seed).tokens.long()
        with torch.no_grad():
            logits = model(ids[None]).logits[0].double()
        rows = slice(Amount(density=0.4).count(blocks) * BLOCK, (blocks - 2) * BLOCK)
        logs.append(torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")[rows])
    expected = math.exp(float(torch.cat(logs).mean()))
    for name in (*REFERENCES, "prefill", "decode"):
        row = table["0.4", name]
        assert row["dense"] == pytest.approx(expected, rel=1e-4)
        assert row["perplexity"] > 0 and row["more"] == pytest.approx(row["perplexity"] / row["dense"] - 1)
    kl = {(row["budget"], row["selector"]): row["kl"] for row in figures.output_table()}
    assert 0 < kl["0.4", "oracle"] < kl["0.2", "oracle"]


def test_prompts_of_several_lengths_are_each_measured_alone(figures) -> None:
    model, lengths = make_tiny("qwen3"), [200, LENGTH, 400]
    gates = {"prefill": init_prefill_gates(model.config, PrefillGateConfig(BLOCK, 16), 1)}
    found = measure_prompts(model, [document(0)], [0.4], gates, block=BLOCK, outputs=True, lengths=lengths)
    rows = {(row["positions"], row["selector"]): row for row in found.loss_table()}
    assert {positions for positions, _ in rows} == {"200", "300"}  # the document has no 400
    alone = [
        each
        for each in figures.losses
        if (each.document, each.budget, each.selector) == ("0", "0.4", "prefill")
    ]
    assert rows["300", "prefill"]["perplexity"] == pytest.approx(math.exp(alone[0].loss))
    short = document(0)
    cut = Document(short.id, short.source, short.tokens[:200])
    again = measure_prompts(model, [cut], [0.4], gates, block=BLOCK, outputs=True).loss_table()
    assert [row["perplexity"] for row in again] == [
        row["perplexity"] for (positions, _), row in rows.items() if positions == "200"
    ]


def test_shared_reads_the_same_blocks_for_all_query_heads_of_a_kv_head() -> None:
    model = make_tiny("qwen3")
    gate = init_prefill_gates(model.config, PrefillGateConfig(BLOCK, 16), 1)[0]
    assert gate is not None and gate.group > 1
    draw = torch.Generator().manual_seed(0)
    q, k = (
        torch.randn(96, n, gate.head_dim, generator=draw) for n in (gate.num_query_heads, gate.num_kv_heads)
    )
    asked = Attention(q, k, k, 1.0, None, None)
    each, together = (Contender(name, gate, BLOCK).scores(asked, None) for name in ("prefill", SHARED))
    groups = together.unflatten(0, (-1, gate.group))
    assert torch.equal(groups[:, 0], groups[:, 1])
    assert torch.equal(groups[:, 0], each.unflatten(0, (-1, gate.group)).amax(1))
