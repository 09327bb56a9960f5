"""Layer plans: resolved once, readable, hashed, and refused where they make no sense."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SelectorConfig
from seer_ray.config.selectors import SELECTORS
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


def test_digest_is_of_what_is_decoded_not_of_how_it_was_said() -> None:
    one = plan(name="quest", dense_layers=2)
    assert one.digest == plan(name="quest", layers={"0-1": "dense"}).digest
    assert one.digest == plan(layers={"2-5": "quest"}).digest
    others = [
        plan(name="quest"),
        plan(name="seer", dense_layers=2),
        plan(name="quest", dense_layers=2, budget=1024),
        plan(name="quest", dense_layers=2, threshold=0.1),
        plan(name="quest", dense_layers=2, sink=False),
        plan(name="quest", dense_layers=2, block=32, budget=1024),  # as many blocks
    ]
    digests = {one.digest, *(other.digest for other in others)}
    assert len(digests) == 7 and all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests)
    assert plan(budget=512).digest == plan(budget=1024).digest  # dense has no budget


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
