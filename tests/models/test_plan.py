"""Layer plans: resolved once, readable, hashed, and refused where they make no sense."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SelectorConfig
from seer_ray.config.selectors import SELECTORS
from seer_ray.models.group import Group
from seer_ray.models.plan import LayerPlan, resolve_plan

MIXERS = ["attention"] * 6


def plan(block: int = 64, **selector: Any) -> LayerPlan:
    return resolve_plan(SelectorConfig(**selector), MIXERS, block)


def selectors(**selector: Any) -> list[str]:
    return [spec.selector for spec in plan(**selector).layers]


def test_dense() -> None:
    dense = plan()
    assert dense.code == "6L:dense"
    assert all(spec.blocks is None and spec.selector == "dense" for spec in dense.layers)
    assert not any(traits.sparse for traits in dense.selectors)


def test_one_selector() -> None:
    seer = plan(name="seer", budget=2048)
    assert seer.code == "6L:seer2048b64" and seer.selectors == {SELECTORS["seer"]}
    assert [spec.layer for spec in seer.layers] == list(range(6))
    assert {(spec.blocks, spec.threshold, spec.sink, spec.mixer) for spec in seer.layers} == {
        (32, None, True, "attention")
    }


def test_code_names_what_differs_most_common_first() -> None:
    mixed = plan(name="seer", budget=1000, dense_layers=1, layers={"5": "quest"})
    assert mixed.code == "6L:4seer960b64+1dense+1quest960b64"  # whole blocks
    assert plan(name="seer", threshold=0.005, sink=False).code == "6L:seer2048b64t0.005-nosink"


def test_later_settings_win() -> None:
    assert selectors(name="seer", dense_layers=2) == ["dense"] * 2 + ["seer"] * 4
    assert selectors(name="seer", dense_layers=2, layers={"1-3": "quest", "3": "oracle"}) == [
        "dense",
        "quest",
        "quest",
        "oracle",
        "seer",
        "seer",
    ]
    assert selectors(layers={"0-5": "window"}) == ["window"] * 6


def test_shares_divide_the_budget_among_layers() -> None:
    shared = plan(name="seer", budget=1024, shares={"0": 0.25, "1-2": 1.5, "2": 1.74, "4": 0.01})
    assert [spec.blocks for spec in shared.layers] == [4, 24, 28, 16, 2, 16]  # two at least are forced
    assert shared.code == "6L:2seer1024b64+1seer256b64+1seer1536b64+1seer1792b64+1seer128b64"
    assert shared.digest != plan(name="seer", budget=1024).digest
    even = plan(name="seer", budget=1024, shares={"0-5": 1.0})
    assert even.digest == plan(name="seer", budget=1024).digest
    assert plan(shares={"0": 0.5}).digest == plan().digest  # dense has no budget


def test_shares_divide_a_threshold_and_leave_the_cap() -> None:
    shared = plan(name="seer", budget=1024, threshold=0.01, shares={"0": 0.25, "1-2": 2})
    assert [spec.threshold for spec in shared.layers] == [0.04, 0.005, 0.005, 0.01, 0.01, 0.01]
    assert {spec.blocks for spec in shared.layers} == {16}


def test_shares_of_a_mass_divide_what_it_leaves_out() -> None:
    shared = plan(name="seer", budget=1024, mass=0.9, shares={"0": 0.25, "1": 2, "2": 0.01}, fraction=0.5)
    assert [spec.mass for spec in shared.layers] == pytest.approx([0.6, 0.95, 0.0, 0.9, 0.9, 0.9])
    assert {(spec.blocks, spec.fraction) for spec in shared.layers} == {(16, 0.5)}
    assert plan(name="seer", mass=0.9, fraction=0.5).id == "6L:seer2048b64m0.9f0.5"


def test_heads_have_shares_of_their_layers() -> None:
    made = plan(
        name="seer",
        budget=1024,
        fraction=0.125,
        shares={"1": 2.0},
        head_shares={"0-1": [0.5, 1.5], "2": [1, 1]},
    )
    blocks = [[head.blocks for head in spec.heads] for spec in made.layers]
    assert blocks == [[8, 24], [16, 48], [], [], [], []]
    assert [spec.blocks for spec in made.layers] == [16, 32, 16, 16, 16, 16]
    assert [head.fraction for head in made.layers[1].heads] == [0.125, 0.375]
    assert made.code == "6L:4seer1024b64f0.125+1seer1024b64f0.125-heads+1seer2048b64f0.25-heads"
    masses = plan(name="seer", mass=0.9, head_shares={"0": [0.5, 2.0]}).layers[0]
    assert [head.mass for head in masses.heads] == pytest.approx([0.8, 0.95])
    everywhere = {name: plan(name="seer", head_shares={"0-5": shares}) for name, shares in HEADS.items()}
    assert everywhere["a"].code == everywhere["b"].code and everywhere["a"].id != everywhere["b"].id


HEADS = {"a": [0.5, 1.5], "b": [1.5, 0.5]}


def test_each_rank_is_told_the_limits_of_its_heads() -> None:
    limit = plan(name="seer", budget=1024, mass=0.9, head_shares={"0": [0.5, 1.0, 2.0, 4.0]}).layers[0].limit
    assert limit is not None
    ranks = [limit.told(2, True, sharpness=(1.0, 3.0), group=Group(rank, 2)) for rank in range(2)]
    assert [told.rule for told in ranks] == ["mass", "mass"]
    expected = [[[16, 0, 0.8, 1], [16, 0, 0.9, 3]], [[16, 0, 0.95, 1], [16, 0, 0.975, 3]]]
    for told, table in zip(ranks, expected, strict=True):
        torch.testing.assert_close(told.table, torch.tensor(table, dtype=torch.float32))


def test_shares_of_other_heads_than_the_models_are_refused() -> None:
    selector = SelectorConfig(name="seer", head_shares={"0": [0.5, 1.5, 1.0]})
    with pytest.raises(
        ConfigError, match=r"selector.head_shares.0=\[0.5, 1.5, 1.0\]: 3 shares, .* has 2 KV heads"
    ):
        resolve_plan(selector, MIXERS, 64, kv_heads=2)
    with pytest.raises(ConfigError, match=r"selector.head_shares.9=.*must name layers 0 to 5"):
        plan(name="seer", head_shares={"9": [1.0]})


def test_digest_is_of_what_is_decoded_not_of_how_it_was_said() -> None:
    one = plan(name="quest", dense_layers=2)
    assert one.digest == plan(name="quest", layers={"0-1": "dense"}).digest
    assert one.digest == plan(layers={"2-5": "quest"}).digest
    others = [
        plan(name="quest"),
        plan(name="seer", dense_layers=2),
        plan(name="quest", dense_layers=2, budget=1024),
        plan(name="quest", dense_layers=2, threshold=0.1),
        plan(name="quest", dense_layers=2, mass=0.1),
        plan(name="quest", dense_layers=2, fraction=0.1),
        plan(name="quest", dense_layers=2, head_shares={"3": [0.5, 1.5]}),
        plan(name="quest", dense_layers=2, head_shares={"3": [1.5, 0.5]}),
        plan(name="quest", dense_layers=2, sink=False),
        plan(name="quest", dense_layers=2, block=32, budget=1024),  # as many blocks
    ]
    digests = {one.digest, *(other.digest for other in others)}
    assert len(digests) == 11 and all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests)
    assert plan(budget=512).digest == plan(budget=1024).digest  # dense has no budget
    assert one.digest == "4f4668424b3a"  # as it always was: resumed runs know it


def test_plans_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        plan().layers[0].selector = "seer"  # type: ignore[misc]
    hash(plan())


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({"dense_layers": 7}, "selector.dense_layers=7: the model has 6 layers"),
        ({"layers": {"6": "dense"}}, "selector.layers.6=dense: must name layers 0 to 5"),
        ({"layers": {"3-6": "dense"}}, "selector.layers.3-6=dense: must name layers 0 to 5"),
        ({"layers": {"3-2": "dense"}}, "selector.layers.3-2=dense: must name"),
        ({"layers": {"-1": "dense"}}, "selector.layers.-1=dense: must name"),
        ({"layers": {"first": "dense"}}, "selector.layers.first=dense: must name"),
        ({"layers": {"3": "sparse"}}, "selector.layers.3=sparse: must be one of dense, seer"),
        ({"shares": {"2-6": 0.5}}, "selector.shares.2-6=0.5: must name layers 0 to 5"),
        ({"name": "sear"}, "selector.name=sear: must be one of dense, seer"),
    ],
)
def test_errors(selector: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(**selector)
    assert str(caught.value).startswith(message)
