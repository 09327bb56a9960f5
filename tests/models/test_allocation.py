"""How heads share a budget: it is their mean at every length, and what covers a sequence reads all of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import request, run, tiny_model, tokens

from seer_ray.config.checks import check_selector
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.engine import Engine
from seer_ray.kernels.select import select
from seer_ray.models.allocation import Allocation, allocation_of, allocation_text, read_allocation
from seer_ray.models.group import Group
from seer_ray.models.plan import LayerPlan, resolve_plan
from seer_ray.models.source import find_allocation

BLOCK = 16
ONE = Allocation(
    (0, 1, 2),
    (64, 256),
    (((32, 96), (16, 64), (64, 112)), ((512, 128), (64, 512), (160, 160))),
)


def counts(allocation: Allocation, budget: int, **options: Any) -> torch.Tensor:
    """Blocks by how many there are and head, ``[blocks, layers * kv_heads]``, as ``select`` counts them."""
    found, all_told = [], []
    for limit in allocation.limits(budget, BLOCK, allocation.layers, **options).values():
        told = limit.told(allocation.kv_heads, sink=True)
        lengths = torch.arange(1, 101) * BLOCK
        table = torch.arange(100).expand(100, 100)
        scores = torch.randn(100, allocation.kv_heads, 100, generator=torch.Generator().manual_seed(0))
        found.append(select(scores, table, lengths, BLOCK, told)[1])
        all_told.append(told)
    assert all(told.everything(budget // BLOCK) for told in all_told)
    assert not all(told.everything(budget // BLOCK + 1) for told in all_told)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("budget", [48, 64, 128, 256, 1024])
def test_the_mean_is_the_budget_at_every_length(budget: int) -> None:
    read, mean = counts(ONE, budget), budget // BLOCK
    for there, heads in enumerate(read.tolist(), 1):
        assert sum(heads) == min(there, mean) * len(heads)
        assert all(min(2, there) <= own <= there for own in heads)
        if there <= mean:
            assert heads == [there] * len(heads)


def test_heads_are_in_proportion_between_and_beyond_the_budgets() -> None:
    assert counts(ONE, 64)[-1].tolist() == [2, 6, 2, 4, 4, 6]  # 1, the second layer's first, is below two
    assert counts(ONE, 256)[-1].tolist() == [32, 8, 4, 32, 10, 10]
    between = counts(ONE, 128)[-1].tolist()
    ends = zip((32, 96, 16, 64, 64, 112), (512, 128, 64, 512, 160, 160), strict=True)
    wanted = [(a * b) ** 0.5 for a, b in ends]
    for own, exact in zip(between, wanted, strict=True):
        assert own == pytest.approx(8 * 6 * exact / sum(wanted), abs=1)
    assert counts(ONE, 512)[-1].tolist() == [64, 16, 8, 64, 20, 20]


def test_no_head_reads_more_than_the_cap() -> None:
    read = counts(ONE, 256, cap=400)
    assert read.max() == 25 and read[-1].float().mean() == 16
    assert counts(ONE, 256, cap=256)[-1].tolist() == [16] * 6


def plan(**options: Any) -> LayerPlan:
    asked = SelectorConfig(**{"name": "quest", "budget": 256, **options.pop("selector", {})})
    return resolve_plan(asked, ["attention"] * 3, BLOCK, allocation={"quest": ONE}, **options)


def test_layers_of_that_selector_without_a_budget_of_their_own_share_it() -> None:
    whole = plan()
    assert whole.code == "3L:quest256b16-allocated" and whole.id == f"{whole.code}@{whole.digest}"
    some = plan(selector={"layers": {"1": "dense"}})
    assert some.code == "3L:2quest256b16-allocated+1dense"
    blocks = [head.blocks for spec in some.layers for head in spec.heads]
    assert sum(blocks) == 4 * 16 and blocks[0] > 32
    paid = plan(plan=PlanConfig(ratio="2", equal_at=512))
    assert [spec.selector for spec in paid.layers] == ["quest", "quest", "dense"]
    assert sum(head.blocks for spec in paid.layers for head in spec.heads) == 4 * 8  # (3 * 256 - 512) / 2
    own = plan(plan=PlanConfig(repeat=["quest:64", "gated"]))
    assert [spec.allotted for spec in own.layers] == [0, 16, 0]
    assert len({each.digest for each in (whole, some, paid, own)}) == 4


def test_ranks_are_told_the_budgets_of_their_heads() -> None:
    limit = plan().layers[0].limit
    assert limit is not None
    both = limit.told(2, True).table
    ranks = [limit.told(1, True, group=Group(rank, 2)).table for rank in range(2)]
    assert torch.equal(torch.cat(ranks), both) and both[:, 0].tolist() == [32, 8]


def test_it_is_found_beside_gates_or_where_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "allocation.json"
    file.write_text(allocation_text({"quest": ONE}, {"model": "tiny"}))
    assert read_allocation(file) == {"quest": ONE}
    quest = SelectorConfig(name="quest")
    named = replace(quest, allocation=str(tmp_path))
    assert find_allocation(named, None) == find_allocation(quest, str(tmp_path)) == file
    assert find_allocation(replace(quest, allocation=str(file)), None) == file
    none = (quest, None), (replace(quest, allocation="uniform"), str(tmp_path))
    by_hand = replace(quest, head_shares={"0": [1.0, 2.0]}), str(tmp_path)
    for asked, gates in (*none, by_hand, (quest, str(tmp_path / "none"))):
        assert find_allocation(asked, gates) is None and allocation_of(asked, gates) == {}


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({"allocation": "nowhere"}, "selector.allocation=nowhere: must be auto, uniform, or a folder with"),
        ({"allocation": ".", "mass": 0.9}, "selector.allocation=.: selector.mass decides already"),
        ({"allocation": ".", "name": "window"}, "selector.allocation=.: is for quest, which no layer has"),
        ({"allocation": ".", "cap": 64}, "selector.cap=64: must not be below the mean budget, 256 tokens"),
        ({"allocation": "uniform", "cap": 999}, "selector.cap=999: bounds what an allocation gives"),
    ],
)
def test_mistakes(
    selector: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("allocation.json").write_text(allocation_text({"quest": ONE}, {}))
    asked = SelectorConfig(**{"name": "quest", "budget": 256, **selector})
    with pytest.raises(ConfigError, match=message):
        check_selector(asked, EngineConfig(block_size=BLOCK), PlanConfig())
        resolve_plan(asked, ["attention"] * 3, BLOCK, allocation=allocation_of(asked, None))
    for mixers, heads, other in ((4, 2, "no layer 3"), (3, 5, "2 KV heads a layer, the model 5")):
        with pytest.raises(ConfigError, match=f"of another model; set .*=uniform: it has {other}"):
            resolve_plan(
                SelectorConfig(name="quest"),
                ["attention"] * mixers,
                BLOCK,
                kv_heads=heads,
                allocation={"quest": ONE},
            )


@pytest.mark.parametrize("text", ["", "{}", '{"selectors": {"quest": {"layers": [0], "budgets": [64]}}}'])
def test_files_of_another_form_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "allocation.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"{file}: cannot be read as an allocation"):
        read_allocation(file)


def test_numbers_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "allocation.json"
    for wrong in (
        replace(ONE, layers=(0, 1)),
        replace(ONE, budgets=(64,)),
        replace(ONE, tokens=((*ONE.tokens[0][:2], (0, 5)), ONE.tokens[1])),
        replace(ONE, tokens=((*ONE.tokens[0][:2], (5,)), ONE.tokens[1])),
    ):
        file.write_text(allocation_text({"quest": wrong}, {}))
        with pytest.raises(ConfigError, match="quest: tokens must be a number above 0 for each budget"):
            read_allocation(file)


@pytest.mark.parametrize("selector", ["seer", "quest", "window"])
def test_a_step_reads_the_budget_and_everything_of_what_it_covers(selector: str, tmp_path: Path) -> None:
    """As an engine decodes: the tokens of dense decoding up to the budget; then the mean of all heads."""
    two = Allocation((0, 1), (96,), (((32, 160), (64, 128)),))
    (tmp_path / "allocation.json").write_text(allocation_text({selector: two}, {}))

    def decode(budget: int, name: str, rows: int) -> dict[str, Any]:
        asked = SelectorConfig(name=name, budget=budget)
        if name != "dense":
            asked = replace(asked, allocation=str(tmp_path))
        engine = Engine(tiny_model("qwen3"), EngineConfig(block_size=BLOCK, max_batch=rows), asked)
        return run(engine, [request(str(row), tokens(100 + row, row), 60) for row in range(rows)])

    dense, covered = (decode(176, name, 2) for name in ("dense", selector))
    assert {row: one.tokens for row, one in covered.items()} == {
        row: one.tokens for row, one in dense.items()
    }
    assert all(one.counters.attended_kv == one.counters.available_kv for one in covered.values())
    alone, mates = decode(96, selector, 1)["0"], decode(96, selector, 3)["0"]
    assert alone.tokens == mates.tokens and alone.counters.attended_kv == mates.counters.attended_kv
    # Two layers, two heads, 60 tokens: 5 blocks and the tokens of the open one.
    read = sum(5 * BLOCK + (length - 1) % BLOCK + 1 for length in range(100, 160))
    assert alone.counters.attended_kv == 4 * read
