"""Prompts that read only the blocks which their layer's selector picks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engines import family_model, make_engine, outcome, request, run, tokens

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine, Request
from seer_ray.engine.mixers import attention
from seer_ray.engine.passes import Tiles
from seer_ray.kernels.chunks import Chunks
from seer_ray.selectors.base import Query, StepView

BLOCK = 16


def engine(selector: str = "seer", sparse: bool = True, budget: int = 3 * BLOCK, **settings: Any) -> Engine:
    return make_engine(selector=selector, budget=budget, sparse_prefill=sparse, **settings)


def requests() -> list[Request]:
    return [request(f"{n}/0", tokens(length, seed=n), 12) for n, length in enumerate((40, 100, 161, 230))]


def outcomes(made: Engine) -> dict[str, Any]:
    return {id: outcome(done) for id, done in run(made, requests()).items()}


@pytest.mark.parametrize("selector", ["seer", "quest", "window", "random"])
def test_only_prompts_beyond_the_budget_change(selector: str) -> None:
    dense, sparse = outcomes(engine(selector, sparse=False)), outcomes(engine(selector))
    assert sparse["0/0"] == dense["0/0"]
    assert [sparse[id][0] != dense[id][0] for id in ("1/0", "2/0", "3/0")].count(True) >= 2
    assert outcomes(engine(selector, budget=240)) == outcomes(engine(selector, sparse=False, budget=240))


def test_dense_layers_stay_dense() -> None:
    both = {"layers": {"0-1": "dense"}}
    assert outcomes(engine(**both)) == outcomes(engine(sparse=False, **both))
    assert engine(**both).plan == engine(sparse=False, **both).plan


@pytest.mark.parametrize("selector", ["seer", "quest", "seer by mass"])
def test_neither_chunks_nor_mates_matter(selector: str) -> None:
    name, _, rule = selector.partition(" ")
    amount: dict[str, Any] = {"mass": 0.6, "budget": 8 * BLOCK} if rule else {}
    expected = outcomes(engine(name, exact=True, prefill_chunk=256, **amount))
    for chunk, batch in ((16, 4), (48, 1), (64, 2)):
        assert outcomes(engine(name, exact=True, prefill_chunk=chunk, max_batch=batch, **amount)) == expected
    assert outcomes(engine(name, prefill_chunk=512, **amount)) == expected


def test_what_a_prompt_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a window: the first block, the one before and its own; sooner all that there are."""
    seen = []
    prefill = attention.prefill

    def note(
        q: Any, kv: Any, chunks: Chunks, scale: float, ids: Any = None, counts: Any = None, **more: Any
    ) -> Any:
        seen.append((chunks, ids, counts))
        return prefill(q, kv, chunks, scale, ids, counts, **more)

    monkeypatch.setattr(attention, "prefill", note)
    run(engine("window", prefill_chunk=32, layers={"0": "dense"}), [request("a", tokens(150), 1)])
    assert len(seen) == 2 * 5
    for layer in range(2):
        found = []
        for chunks, ids, counts in seen[layer::2]:
            if layer == 0 or chunks.table.shape[1] <= 3:
                assert ids is None
                continue
            places = {page: place for place, page in enumerate(chunks.table[0].tolist())}
            for tile, pages, count in zip(chunks.tiles, ids.tolist(), counts.tolist(), strict=True):
                assert pages[0] == pages[1] and count[0] == count[1] == 3
                found.append((tile.block, [places[page] for page in pages[0]]))
        if layer:
            assert found == [(n, [0, n - 1, n]) for n in range(2, 10)]


def test_the_tokens_of_a_block_share_their_mean_score() -> None:
    """Two chunks, one from within a block; what is not complete holds garbage."""
    chunks = Chunks(((20, 50), (0, 5)), torch.arange(8).view(2, 4), BLOCK)
    scores = torch.randn(35, 2, 4, generator=torch.Generator().manual_seed(0))
    found = Tiles(chunks).mean(scores)
    spans = ((0, 12), (12, 28), (28, 30), (30, 35))
    torch.testing.assert_close(found, torch.stack([scores[low:high].mean(0) for low, high in spans]))
    assert Tiles(chunks).lengths.tolist() == [17, 33, 49, 1]
    assert Tiles(chunks).table.tolist() == [[0, 1, 2, 3]] * 3 + [[4, 5, 6, 7]]


def test_the_mean_of_the_gates_scores_is_the_score_of_the_mean_gate_query() -> None:
    made = engine("seer")
    gate = made.runner.decoder.selectors[0]
    assert gate is not None
    draw = torch.Generator().manual_seed(1)
    summary = torch.randn(5, 2, 8, generator=draw)
    q = torch.randn(7, 4, 16, generator=draw)
    position = torch.arange(48, 55)
    view = StepView(position, position + 1, torch.tensor([[1, 2, 3, 4]]).expand(7, 4), BLOCK)
    query = Query(q, q, made.runner.cache.kv[0], summary, 1.0)
    asked = gate.gate.gate_query(q, position, view.rotary(gate.gate.rope)).mean(0)  # type: ignore[attr-defined]
    expected = torch.einsum("hd,phd->hp", asked, summary[1:4])
    torch.testing.assert_close(gate.scores(query, view).mean(0)[:, :3], expected)


def test_the_plan_says_so() -> None:
    sparse, dense = engine().plan, engine(sparse=False).plan
    assert sparse.code == "2L:seer48b16-prefill" and dense.code == "2L:seer48b16"
    assert sparse.digest != dense.digest


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"selector\.sparse_prefill=true: oracle would read all keys"):
        engine("oracle")
    with pytest.raises(ConfigError, match=r"engine.prefill_chunk=40: must be a multiple of .*block_size=16"):
        engine(prefill_chunk=40)
    engine("dense", prefill_chunk=40)


@pytest.mark.parametrize("selector", ["seer", "quest"])
@pytest.mark.parametrize("family", ["qwen3_next", "gpt_oss", "exaone4", "smollm3", "glm4", "falcon_h1"])
def test_layers_of_models_that_run_as_they_are(family: str, selector: str) -> None:
    """With windows, sinks, states, no RoPE or a part of it beside: a prompt within the budget is read whole,
    also where the pass goes through the selection for longer ones; neither chunks nor mates matter."""

    def made(**settings: Any) -> Any:
        options = {"block_size": BLOCK, "max_batch": 4, "prefill_chunk": 512} | settings
        sparse = options.pop("sparse", True)
        chosen = SelectorConfig(name=selector, budget=3 * BLOCK, sparse_prefill=sparse)
        return outcomes(Engine(family_model(family), EngineConfig(**options), chosen))

    dense, sparse = made(sparse=False), made()
    assert sparse["0/0"] == dense["0/0"]
    assert [sparse[id][0] != dense[id][0] for id in ("1/0", "2/0", "3/0")].count(True) >= 1
    assert made(prefill_chunk=16, max_batch=2, exact=True) == made(exact=True)
