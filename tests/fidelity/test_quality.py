"""Figures of selections: against explicit attention maps, hand-made examples, and the engine itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import make_engine, tiny_model, tokens
from torch import Tensor

from seer_ray.config.options import SelectorConfig
from seer_ray.corpora.documents import Document
from seer_ray.engine.mixers import attention as engine_attention
from seer_ray.engine.passes import DecodePass
from seer_ray.fidelity import passes
from seer_ray.fidelity.figures import Figures
from seer_ray.fidelity.passes import DensePass, Layer, Pages, SparsePass
from seer_ray.fidelity.quality import REFERENCES, Rows, measure
from seer_ray.fidelity.settings import Setting
from seer_ray.kernels.rotary import rotate
from seer_ray.models.gate import AttnGate
from seer_ray.models.limits import Limit, layer_limits
from seer_ray.models.patch import attention_shape, forward_tokens, patch_attention, rope_tables
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention
from seer_ray.selectors.base import Query
from seer_ray.selectors.make import make_selector
from seer_ray.selectors.oracle import Oracle

BLOCK = 16
LENGTH = 330
"""Tokens: 20 blocks and 10 tokens."""
AMOUNT = ("threshold", "mass", "shares", "head_shares", "fraction")
GATED = ("seer", "quest", "oracle", "window", "random")


def document(id: str, length: int) -> Document:
    return Document(id, "noise", torch.tensor(tokens(length), dtype=torch.int32))


def gates_of(family: str = "qwen3", block: int = BLOCK) -> tuple[AttnGate | None, ...]:
    return tiny_model(family).load_gates(block)


def figures(
    budgets: tuple[Any, ...] = ("1/4",), length: int = LENGTH, family: str = "qwen3", **given: Any
) -> Figures:
    options = {"references": REFERENCES, "block_size": BLOCK, "outputs": False} | given
    documents = options.pop("documents", [document("a", length)])
    gates = options.pop("gates", {"seer": gates_of(family)})
    selector = SelectorConfig(**{name: options.pop(name) for name in AMOUNT if name in options})
    settings = [replace(Setting.of(budget), selector=selector) for budget in budgets]
    return measure(tiny_model(family).model, documents, settings, gates, **options)


def pages_of(length: int, family: str = "qwen3") -> Pages:
    model: Any = tiny_model(family).model
    return Pages(attention_shape(model), rope_tables(model, length), length, BLOCK, next(model.parameters()))


class Maps:
    """Every layer's attention probabilities in float64, ``[q_heads, tokens, tokens]``, written out."""

    def __init__(self, length: int, family: str = "qwen3") -> None:
        model: Any = tiny_model(family).model
        patch_attention(model)
        self.cos, self.sin = RopeTable.from_config(model.config).at(torch.arange(length))
        self.maps: list[Tensor] = []
        forward_tokens(model, torch.tensor(tokens(length)), self)

    def attend(self, layer: int, asked: Attention) -> Tensor:
        q, k, v, scale, *_ = asked
        q, k, v = (x.double() for x in (rotate(q, self.cos, self.sin), rotate(k, self.cos, self.sin), v))
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        logits = torch.einsum("thd,shd->hts", q, k) * scale
        dead = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
        self.maps.append(torch.softmax(logits.masked_fill(dead, float("-inf")), dim=-1))
        return torch.einsum("hts,shd->thd", self.maps[-1], v).float()


def by_selector(found: Figures, *by: str) -> dict[Any, dict[str, Any]]:
    return {tuple(row[key] for key in (*by, "selector")): row for row in found.layer_table(*by)}


def test_window_keeps_the_mass_of_the_first_and_the_last_blocks() -> None:
    """Mass, recall and tokens read against the definition, on explicit maps."""
    found = by_selector(figures(), "layer")
    rows, k = range(LENGTH // 2, LENGTH - 1), LENGTH // 4 // BLOCK
    for layer, probability in enumerate(Maps(LENGTH).maps):
        blocks = torch.nn.functional.pad(probability, (0, -LENGTH % BLOCK)).view(4, LENGTH, -1, BLOCK)
        mass, recall, read = 0.0, 0.0, 0.0
        for row in rows:
            last = row // BLOCK
            chosen = {0, *range(last - k + 2, last + 1)}
            for head in range(2):
                group = blocks[2 * head : 2 * head + 2, row]
                mass += float(group[:, sorted(chosen)].sum())
                ranks = group.amax((0, 2))
                ranks[[0, last]] = 2.0
                recall += len(chosen & set(ranks.topk(k).indices.tolist())) / k
            read += (k - 1) * BLOCK + row % BLOCK + 1
        assert found[layer, "window"]["mass"] == pytest.approx(mass / len(rows) / 4, abs=1e-6)
        assert found[layer, "window"]["recall"] == pytest.approx(recall / len(rows) / 2, abs=1e-9)
        assert found[layer, "window"]["read"] == pytest.approx(read / len(rows))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_the_oracle_recalls_itself_and_nothing_keeps_more_than_the_best(family: str) -> None:
    """The oracle ranks by the maximum, so a selector may beat its mass; none beats a ranking by mass."""
    found = by_selector(figures(("1/4", 64, "1/2"), family=family), "layer", "budget")
    for layer in range(2):
        for budget in ("1/4", "64", "1/2"):
            assert found[layer, budget, "oracle"]["recall"] == 1
            assert found[layer, budget, "oracle"]["of_oracle"] == 1
            best = found[layer, budget, "best"]["mass"]
            for selector in ("seer", "oracle", "quest", "window", "random"):
                assert 0 < found[layer, budget, selector]["mass"] <= best + 1e-6


def test_a_budget_of_the_whole_length_is_dense() -> None:
    found = figures((21 * BLOCK,), outputs=True)
    for row in found.layer_table("layer"):
        assert row["mass"] == pytest.approx(1, abs=1e-5)
        assert row["recall"] == 1
        assert row["read"] == pytest.approx((LENGTH // 2 + LENGTH) / 2)
    assert len(found.output_table()) == len(GATED)
    for row in found.output_table():
        assert row["kl"] == 0
        assert row["top1"] == 1


def test_three_blocks_by_hand() -> None:
    """Two heads share a selection; logits are chosen so that every probability is a simple fraction."""
    model: Any = tiny_model("qwen3").model
    shape = attention_shape(model)
    pages = pages_of(3 * BLOCK)
    pages.kv.fill_(-100.0)  # exp(-100 q) is nothing
    q = torch.zeros(3 * BLOCK, shape.q_heads, shape.head_dim)
    q[:, 0, 0] = q[:, 1, 1] = q[:, 2:, 0] = 1
    for head in range(shape.kv_heads):
        # Weights of head 0: 1, 1 | 4, 0 | 2;  of head 1: 5, 0 | 1, 1 | 1. Elsewhere none.
        for block, slot, first, second in (
            (0, 0, 1, 5),
            (0, 1, 1, 0),
            (1, 0, 4, 1),
            (1, 1, 0, 1),
            (2, 0, 2, 1),
        ):
            pages.kv[block, head, 0, slot, 0] = torch.tensor(float(first)).clamp(min=1e-30).log()
            pages.kv[block, head, 0, slot, 1] = torch.tensor(float(second)).clamp(min=1e-30).log()
    layer = Layer(0, pages, Attention(q, q, q, 1.0), q)
    shares = layer.shares(torch.tensor([2 * BLOCK, 3 * BLOCK - 1]))
    for row in range(2):
        torch.testing.assert_close(shares.mass[row, 0, 0], torch.tensor([2.0, 4.0, 2.0]) / 8)
        torch.testing.assert_close(shares.mass[row, 0, 1], torch.tensor([5.0, 2.0, 1.0]) / 8)
        torch.testing.assert_close(shares.log_max[row, 0].exp(), torch.tensor([5.0, 4.0, 2.0]) / 8)


def test_the_oracles_scores_are_those_of_the_selector() -> None:
    found: list[tuple[Tensor, Tensor]] = []

    def look(layer: Layer) -> None:
        rows = torch.tensor([3, 40, 47, 48, LENGTH - 1])
        query = Query(layer.asked.q[rows], layer.q[rows], layer.pages.kv, None, layer.asked.scale)
        found.append((layer.shares(rows).log_max, Oracle().scores(query, layer.pages.view(rows))))

    model: Any = tiny_model("qwen3").model
    patch_attention(model)
    forward_tokens(model, torch.tensor(tokens(LENGTH)), DensePass(pages_of(LENGTH), look))
    assert len(found) == 2
    for ours, theirs in found:
        torch.testing.assert_close(ours, theirs)


def test_chance_recalls_what_it_must() -> None:
    """k of n blocks, two of them forced: (2 + (k - 2)² / (n - 2)) / k on average."""
    length, k = 900, 10
    row = by_selector(figures((k * BLOCK,), length))[("random",)]
    blocks = [position // BLOCK + 1 for position in range(length // 2, length)]
    expected = sum((2 + (k - 2) ** 2 / (n - 2)) / k for n in blocks) / len(blocks)
    # 1,800 draws of a share with a standard deviation of at most 0.16, correlated from row to row
    assert row["recall"] == pytest.approx(expected, abs=0.02)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        found = figures(("1/4", 96), outputs=True, rows=Rows(first=0.3))
        return found.layer_table("layer"), found.output_table()

    whole = all_of()
    monkeypatch.setattr(passes, "LOGITS", 7 * 4 * 336)  # seven rows
    monkeypatch.setattr(passes, "ROWS", 19)
    for before, after in zip(whole, all_of(), strict=True):
        assert len(before) == len(after) > 0
        for x, y in zip(before, after, strict=True):
            assert x == pytest.approx(y, abs=1e-5, nan_ok=True)


def engine_steps(selector: str, length: int, **options: Any) -> tuple[Tensor, list[list[set[int]]]]:
    """The engine's decode steps of the same tokens: hidden states, and the blocks by layer, row and head."""
    runner = make_engine("qwen3", selector, block=BLOCK, **options).runner
    model: Any = runner.loaded.model
    own = 1 + torch.arange(-(-length // BLOCK)).flip(0)  # physical pages in another order than positions
    chosen: list[list[set[int]]] = [[], []]
    original = engine_attention.select

    def spy(*arguments: Any) -> tuple[Tensor, Tensor]:
        pages, counts = original(*arguments)
        number = spy.calls % 2  # type: ignore[attr-defined]
        spy.calls += 1  # type: ignore[attr-defined]
        place = {int(page): index for index, page in enumerate(own)}
        for head in range(pages.shape[1]):
            chosen[number].append({place[int(page)] for page in pages[0, head, : int(counts[0, head])]})
        return pages, counts

    spy.calls = 0  # type: ignore[attr-defined]
    engine_attention.select = spy  # type: ignore[assignment]
    try:
        hidden = []
        with torch.inference_mode():
            for position, token in enumerate(tokens(length)):
                page = position // BLOCK
                full = [(int(own[page]), page * BLOCK)] if (position + 1) % BLOCK == 0 else []
                step = DecodePass(runner.decoder, [own[: page + 1].unsqueeze(0)], [position], full)
                hidden.append(forward_tokens(model, torch.tensor([token]), step))
    finally:
        engine_attention.select = original
    return torch.cat(hidden), chosen


@pytest.mark.parametrize(
    ("selector", "amount"),
    [(name, {}) for name in GATED]
    + [
        ("seer", {"threshold": 0.12, "shares": {"1": 1.5}}),
        ("seer", {"mass": 0.6, "head_shares": {"0": [0.5, 2.0]}}),
        ("quest", {"shares": {"0": 0.5}}),
        ("quest", {"fraction": 0.6, "head_shares": {"1": [0.5, 1.5]}}),
    ],
)
def test_a_row_is_a_decode_step_of_the_engine(
    selector: str, amount: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden states of all tokens, and the blocks of all that have a choice, as the engine makes them."""
    length, budget = 150, 4 * BLOCK
    loaded = tiny_model("qwen3")
    model: Any = loaded.model
    expected, by_engine = engine_steps(selector, length, budget=budget, **amount)
    limits = layer_limits([budget] * 2, BLOCK, SelectorConfig(**amount))
    rule = {"threshold", "mass"} & {*amount}
    ours: dict[int, list[set[int]]] = {}
    original = passes.Layer.select

    def spy(self: Layer, scores: Tensor, rows: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
        pages, counts = original(self, scores, rows, *how)
        for row in range(len(rows)):
            for head in range(pages.shape[1]):
                count = int(counts[row, head])
                ours.setdefault(self.index, []).append(set(pages[row, head, :count].tolist()))
        return pages, counts

    monkeypatch.setattr(passes.Layer, "select", spy)
    shape, gates = attention_shape(model), gates_of()
    selectors = [make_selector(selector, layer, shape, gates[layer]) for layer in range(2)]
    with torch.inference_mode():
        found = forward_tokens(
            model, torch.tensor(tokens(length)), SparsePass(pages_of(length), selectors, limits)
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for layer in range(2):
        least = min(head.blocks for head in (limits[layer], *limits[layer].heads))
        free = (length - (1 if rule else least) * BLOCK) * shape.kv_heads
        assert len(ours[layer]) == free
        if rule:
            assert {len(some) for some in ours[layer]} >= {2, 3, 4}
        assert ours[layer] == by_engine[layer][-free:]


def test_outputs_are_distances_from_dense() -> None:
    """KL and agreement against full logits, for the rows that were asked for."""
    model: Any = tiny_model("qwen3").model
    rows = Rows(first=0.4, stride=3, beyond=200)
    found = {(r["selector"], r["positions"]): r for r in figures(outputs=True, rows=rows).output_table()}
    ids = torch.tensor(tokens(LENGTH))
    selectors = [make_selector("window", layer, attention_shape(model)) for layer in range(2)]
    dense = torch.log_softmax(model(ids.unsqueeze(0)).logits[0].double(), -1)
    hidden = forward_tokens(
        model, ids, SparsePass(pages_of(LENGTH), selectors, 2 * [Limit(LENGTH // 4 // BLOCK)])
    )
    sparse = torch.log_softmax(model.lm_head(hidden).double(), -1)
    kl = (dense.exp() * (dense - sparse)).sum(-1)
    same = (dense.argmax(-1) == sparse.argmax(-1)).double()
    for positions, index in {"all": range(132, LENGTH, 3), ">200": range(201, LENGTH, 3)}.items():
        row = found["window", positions]
        assert row["rows"] == len(index)
        assert row["kl"] == pytest.approx(float(kl[list(index)].mean()), rel=1e-3)
        assert row["top1"] == pytest.approx(float(same[list(index)].mean()))
    assert found["window", "all"]["kl"] > 0.01


def test_shares_and_a_threshold_are_of_layers_and_outputs_alike() -> None:
    """What a layer reads, by layer and by hand; outputs change with it."""
    plain = figures(("1/4",), references=("quest",), outputs=True)
    wide = figures(("1/4",), references=("quest",), outputs=True, shares={"1": 2})
    few = figures(("1/2",), references=("quest",), outputs=True, threshold=0.08)
    read = {name: by_selector(found, "layer") for name, found in (("plain", plain), ("wide", wide))}
    for selector in ("seer", "quest"):
        assert read["wide"][0, selector]["read"] == read["plain"][0, selector]["read"]
        assert read["wide"][1, selector]["read"] == read["plain"][1, selector]["read"] + 5 * BLOCK
    half = LENGTH // 2 // BLOCK
    fewer = figures(("1/2",), references=("quest",), threshold=0.08, shares={"0": 0.8})
    before, after = by_selector(few, "layer"), by_selector(fewer, "layer")
    for selector in ("seer", "quest"):
        assert after[0, selector]["read"] < before[0, selector]["read"] < half * BLOCK
        assert 2 * BLOCK < after[1, selector]["read"] == before[1, selector]["read"] < half * BLOCK
    kl = [{row["selector"]: row["kl"] for row in found.output_table()} for found in (plain, wide, few)]
    for selector in ("seer", "quest"):
        assert kl[1][selector] < kl[0][selector] != kl[2][selector]


def test_layers_without_a_gate_are_dense() -> None:
    gate = gates_of()[1]
    found = figures(gates={"half": (None, gate)}, references=("quest",), outputs=True)
    layers = {(figure.selector, figure.layer) for figure in found.layers}
    assert layers == {("half", 1), ("quest", 0), ("quest", 1)}
    none = figures(gates={"none": (None, None)}, references=(), outputs=True).output_table()
    assert none[0]["kl"] == 0
    dense = figures(gates={}, references=("window",), outputs=True, dense_layers=2).output_table()
    assert dense[0]["kl"] == 0


def test_documents_shorter_than_the_budget_count_as_dense() -> None:
    found = figures((64,), documents=[document("a", 5), document("b", 40)])
    for row in found.layer_table():
        assert row["mass"] == pytest.approx(1, abs=1e-6)
        assert row["recall"] == 1
        assert row["documents"] == 2
