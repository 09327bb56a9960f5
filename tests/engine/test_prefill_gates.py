"""Prompts that read the blocks which prefill gates pick: what is read, what stays dense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import make_engine, outcome, request, run, tiny_model, tokens

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.config.selecting import PrefillConfig
from seer_ray.engine import Engine, Request
from seer_ray.engine.mixers import attention
from seer_ray.engine.sparse_prefill import SparseRows, causal_pairs, sparse_rows
from seer_ray.kernels.blocks import Amount
from seer_ray.models.allocation import PROMPTS, Allocation, allocation_text
from seer_ray.models.load import LoadedModel
from seer_ray.models.plan import PrefillPlan
from seer_ray.models.source import ALLOCATION

BLOCK = 16
WAYS = [
    PrefillConfig(density=0.3),
    PrefillConfig(threshold=0.1),
    PrefillConfig(mass=0.6, sink=False),
    PrefillConfig(density=0.4, shared=True, last_blocks=0),
]


def engine(prefill: PrefillConfig | None = None, **settings: Any) -> Engine:
    return make_engine(prefill=prefill or PrefillConfig(density=0.3), **settings)


def requests(**more: Any) -> list[Request]:
    made = [request(f"{n}/0", tokens(length, seed=n), 10) for n, length in enumerate((40, 100, 161, 256))]
    return [replace(one, **more) for one in made]


def outcomes(made: Engine, **more: Any) -> dict[str, Any]:
    return {id: outcome(done) for id, done in run(made, requests(**more)).items()}


def caches(
    made: Engine, prompt: tuple[int, ...], document: tuple[int, int] | None = None
) -> list[torch.Tensor]:
    """K and V of every layer after a prompt."""
    one = replace(request("a/0", prompt, 1), document=document)
    run(made, [one])
    return [kv.clone() for kv in made.runner.cache.kv]


@pytest.mark.parametrize("way", [PrefillConfig(density=1.0), PrefillConfig(mass=1.0)], ids=str)
@pytest.mark.parametrize("selector", ["dense", "seer"])
def test_everything_is_dense_bit_for_bit(way: PrefillConfig, selector: str) -> None:
    dense, sparse = make_engine(selector=selector, budget=48), engine(way, selector=selector, budget=48)
    assert outcomes(sparse) == outcomes(dense)
    for ours, theirs in zip(caches(sparse, tokens(200)), caches(dense, tokens(200)), strict=True):
        assert torch.equal(ours, theirs)
    stats = sparse.stats()
    assert stats["prefill_attended"] == stats["prefill_available"] > 0


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_neither_chunks_nor_mates_matter(way: PrefillConfig) -> None:
    expected = outcomes(engine(way, exact=True, prefill_chunk=256))
    assert expected != outcomes(make_engine(exact=True))
    for chunk, batch in ((16, 4), (48, 1), (64, 2)):
        assert outcomes(engine(way, exact=True, prefill_chunk=chunk, max_batch=batch)) == expected
    assert outcomes(engine(way, prefill_chunk=512)) == expected


def test_dense_prompts_are_computed_as_alone() -> None:
    """Beside sparse ones in a pass, as without."""
    short, long = request("a/0", tokens(33), 8), request("b/0", tokens(250, seed=1), 8)
    together = run(engine(prefill_chunk=512), [short, long])
    assert outcome(together["a/0"]) == outcome(run(make_engine(prefill_chunk=512), [short])["a/0"])


def test_decoding_is_another_matter() -> None:
    for selector in ("dense", "seer", "quest"):
        found = outcomes(engine(selector=selector, budget=48))
        assert {id: done[4:] for id, done in found.items()} == {
            id: done[4:] for id, done in outcomes(make_engine(selector=selector, budget=48)).items()
        }


def test_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lists that attention is given: within the document whole blocks as many as the density says,
    forced ones among them, all elsewhere; and the counters say the same."""
    seen: list[Any] = []
    from seer_ray.engine import sparse_prefill

    prefill = sparse_prefill.prefill

    def note(q: Any, kv: Any, chunks: Any, scale: float, ids: Any, counts: Any, **more: Any) -> Any:
        seen.append((chunks, ids, counts))
        return prefill(q, kv, chunks, scale, ids, counts, **more)

    monkeypatch.setattr(sparse_prefill, "prefill", note)
    made = engine(PrefillConfig(density=0.3), prefill_chunk=64, dense_layers=1)
    prompt, document = tokens(320), (70, 290)
    run(made, [replace(request("a/0", prompt, 1), document=document)])
    count = Amount(density=0.3).count(20)
    assert count == 3 and len(seen) == 5  # of one layer
    attended = 0
    for chunks, ids, counts in seen:
        places = {page: place for place, page in enumerate(chunks.table[0].tolist())}
        for tile, of_heads, number in zip(chunks.tiles, ids.tolist(), counts.tolist(), strict=True):
            for pages, n in zip(of_heads, number, strict=True):
                read = [places[page] for page in pages[:n]]
                assert read == sorted(set(read)) and read[-1] == tile.block
                attended += causal_pairs(((tile.start, tile.end),)) - BLOCK * (tile.end - tile.start) * (
                    tile.block + 1 - n
                )
                if 5 <= tile.block < 18:
                    assert n == count and read[0] == 0
                else:
                    assert read == list(range(tile.block + 1))
    stats = made.stats()
    assert stats["prefill_attended"] == attended
    assert stats["prefill_available"] == 4 * causal_pairs(((0, 319),))


# -- heads that share a density ----------------------------------------------------------------------

HEADS = [[0.1, 0.2, 0.3, 0.6], [0.9, 0.1, 0.1, 0.1]]
"""Of two layers; 0.3 on average."""


@pytest.fixture
def shared(tmp_path: Path) -> str:
    one = Allocation((0, 1), (0.3,), (tuple(map(tuple, HEADS)),))
    (tmp_path / ALLOCATION).write_text(allocation_text({PROMPTS: one}, {}))
    return str(tmp_path)


def test_each_head_reads_its_own_density(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both layers, whatever chunks a prompt is computed in; by KV head the mean of its query heads."""
    seen: list[torch.Tensor] = []
    from seer_ray.engine import sparse_prefill

    prefill = sparse_prefill.prefill

    def note(q: Any, kv: Any, chunks: Any, scale: float, ids: Any, counts: Any, **more: Any) -> Any:
        seen.extend(n for tile, n in zip(chunks.tiles, counts, strict=True) if tile.block == 17)
        return prefill(q, kv, chunks, scale, ids, counts, **more)

    monkeypatch.setattr(sparse_prefill, "prefill", note)
    for together in (False, True):
        way = PrefillConfig(density=0.3, allocation=shared, shared=together)
        made = engine(way, prefill_chunk=64)
        run(made, [request("a/0", tokens(320), 1)])
        own = [[sum(heads[at : at + 2]) / 2 for at in (0, 2)] if together else heads for heads in HEADS]
        expected = [[min(18, Amount(density=each).count(20)) for each in heads] for heads in own]
        assert [counts.tolist() for counts in seen] == expected
        seen.clear()


def test_heads_that_share_know_neither_chunks_nor_mates(shared: str) -> None:
    way = PrefillConfig(density=0.3, allocation=shared)
    expected = outcomes(engine(way, exact=True, prefill_chunk=256))
    assert expected != outcomes(engine(PrefillConfig(density=0.3), exact=True, prefill_chunk=256))
    for chunk, batch in ((16, 4), (48, 1)):
        assert outcomes(engine(way, exact=True, prefill_chunk=chunk, max_batch=batch)) == expected
    assert outcomes(engine(PrefillConfig(density=1.0, allocation=shared))) == outcomes(make_engine())


def test_plans_of_heads_that_share(shared: str) -> None:
    plan = engine(PrefillConfig(density=0.3, allocation=shared)).plan
    assert plan.code == "2L:dense~d0.3-allocated"
    assert plan.digest != engine(PrefillConfig(density=0.3)).plan.digest
    assert plan.prefill is not None and plan.prefill.count(20) == Amount(density=0.1).count(20)


@pytest.mark.parametrize(
    ("layers", "heads", "message"),
    [
        ((0,), HEADS[:1], "that of another model, it has no layer 1; set it to uniform"),
        ((0, 1), [[0.3] * 3] * 2, "that of another model, it has 3 query heads, not 4; set it to uniform"),
    ],
)
def test_an_allocation_of_another_model(
    tmp_path: Path, layers: tuple[int, ...], heads: list[list[float]], message: str
) -> None:
    one = Allocation(layers, (0.3,), (tuple(map(tuple, heads)),))
    (tmp_path / ALLOCATION).write_text(allocation_text({PROMPTS: one}, {}))
    with pytest.raises(ConfigError) as error:
        engine(PrefillConfig(density=0.3, allocation=str(tmp_path)))
    assert str(error.value) == f"selector.prefill.allocation: {message}"


def test_unselected_pages_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from seer_ray.engine import sparse_prefill

    prefill = sparse_prefill.prefill

    def poisoned(q: Any, kv: Any, chunks: Any, scale: float, ids: Any, counts: Any, **more: Any) -> Any:
        expected = prefill(q, kv, chunks, scale, ids, counts, **more)
        for index, tile in enumerate(chunks.tiles):
            read = torch.cat([pages[:n] for pages, n in zip(ids[index], counts[index], strict=True)])
            broken = torch.full_like(kv, float("nan"))
            broken[read] = kv[read]
            rows = slice(tile.first, tile.first + tile.end - tile.start)
            found = prefill(q, broken, chunks, scale, ids, counts, **more)[rows]
            assert torch.equal(found, expected[rows])
        return expected

    monkeypatch.setattr(sparse_prefill, "prefill", poisoned)
    run(engine(prefill_chunk=64), [request("a/0", tokens(200), 1)])


def test_outside_of_the_document_all_is_dense() -> None:
    """A document of nothing, or one without a whole block, leaves the dense result."""
    dense = outcomes(make_engine())
    assert outcomes(engine(), document=(30, 40)) == dense != outcomes(engine())
    assert outcomes(engine(), document=(0, 256)) == outcomes(engine())


def test_prompts_are_shared_only_with_the_same_document() -> None:
    prompt = tokens(200)
    asked = [
        replace(request(f"{n}/0", prompt, 8), document=document)
        for n, document in enumerate((None, (0, 20), (32, 180)))
    ]
    together = run(engine(prefill_chunk=512), asked)
    for one in asked:
        alone = run(engine(prefill_chunk=512), [one])[one.id]
        assert outcome(together[one.id]) == outcome(alone)


@pytest.mark.parametrize(
    ("prompt", "document", "expected"),
    [
        (320, None, SparseRows(3, 18, 20)),
        (320, (70, 290), SparseRows(5, 18, 20)),
        (320, (70, 200), SparseRows(5, 12, 20)),
        (321, None, SparseRows(3, 19, 21)),
        (32, None, None),
        (320, (70, 85), None),
    ],
)
def test_sparse_rows(prompt: int, document: tuple[int, int] | None, expected: SparseRows | None) -> None:
    assert sparse_rows(PrefillPlan(Amount(density=0.3)), prompt, document, BLOCK) == expected
    assert sparse_rows(PrefillPlan(Amount(density=1.0)), prompt, document, BLOCK) is None
    assert sparse_rows(None, prompt, document, BLOCK) is None


def test_no_rows_at_the_end_need_be_dense() -> None:
    plan = PrefillPlan(Amount(threshold=0.1), last_blocks=0)
    assert sparse_rows(plan, 320, None, BLOCK) == SparseRows(0, 19, 20)  # the last token is a decode step's
    assert sparse_rows(plan, 321, None, BLOCK) == SparseRows(0, 20, 21)


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefill", "settings", "message"),
    [
        (
            {"density": 0.001},
            {"max_length": 256},
            "selector.prefill.density=0.001: keeps no block of the longest prompt there may be, 256 tokens "
            "or 16 blocks; set 0.12 or more",
        ),
        ({"density": 0.0}, {}, "selector.prefill.density=0: must be above 0"),
        (
            {"density": 0.5, "mass": 0.5},
            {},
            "selector.prefill.density=0.5 and selector.prefill.mass=0.5: one of them says how much is read",
        ),
        (
            {"density": 0.5},
            {"prefill_chunk": 100},
            "engine.prefill_chunk=100: must be a multiple of engine.block_size=16 with selector.prefill.d",
        ),
        (
            {"mass": 0.5, "allocation": "runs"},
            {},
            "selector.prefill.allocation=runs: shares sel",
        ),
        (
            {"density": 0.5, "allocation": "nowhere"},
            {},
            "selector.prefill.allocation=nowhere: must be auto, uniform, or a folder with allocation.json",
        ),
        ({"density": 0.5}, {"dense_layers": 2}, "selector.dense_layers=2: no later layer has a gate in"),
        (
            {"density": 0.5},
            {"selector": "seer", "budget": 64, "sparse_prefill": True},
            "selector.prefill.density=0.5: selector.sparse_prefill=true has the gates of decoding pick",
        ),
    ],
)
def test_refused(prefill: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        engine(PrefillConfig(**prefill), **settings)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_model_without_prefill_gates_says_so() -> None:
    tiny = tiny_model("qwen3")
    plain = LoadedModel(tiny.model, tiny.tokenizer, tiny.hf_config, "qwen3", tiny.dtype, tiny.device)
    selector = SelectorConfig(prefill=PrefillConfig(density=0.3))
    with pytest.raises(ConfigError, match=r"qwen3 has no prefill gates, model.prefill_gates is not set"):
        Engine(plain, EngineConfig(block_size=16), selector)
    assert attention.PagedAttention(Engine(plain).runner.decoder, 0).prompts is None


def test_the_plan_says_how_prompts_are_read() -> None:
    plan = engine(PrefillConfig(density=0.3, shared=True), selector="seer", budget=64).plan
    assert plan.id == "2L:seer64b16~d0.3-shared"
    assert (
        plan.digest
        != engine(PrefillConfig(density=0.31, shared=True), selector="seer", budget=64).plan.digest
    )
