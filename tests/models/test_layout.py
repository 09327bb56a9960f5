"""Layouts: which layers are anchors, what the others do, and what they may read."""

from __future__ import annotations

from typing import Any

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.layouts import LAYOUTS, anchors_of
from seer_ray.config.options import PlanConfig, SelectorConfig
from seer_ray.config.works import is_dense
from seer_ray.models.plan import LayerPlan, resolve_plan

SEER = SelectorConfig(name="seer", budget=1024)
TABLE_11 = {
    "even": {2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24},
    "odd": {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23},
    "top": set(range(1, 13)),
    "middle": {1, 2, 3, 4, 5, 6, 19, 20, 21, 22, 23, 24},
    "bottom": set(range(13, 25)),
    "quarter": {4, 8, 12, 16, 20, 24},
    "first": {1},
    "last": {24},
    "bilateral": {1, 24},
}
"""Of Xue et al. (2025): the standard layers of 24, counted from 1."""


def plan(layers: int | list[str] = 8, selector: SelectorConfig = SEER, **options: Any) -> LayerPlan:
    mixers = ["attention"] * layers if isinstance(layers, int) else layers
    return resolve_plan(selector, mixers, 64, PlanConfig(**options))


def dense(made: LayerPlan) -> list[int]:
    return [spec.layer for spec in made.layers if spec.selector == "dense"]


@pytest.mark.parametrize("name", TABLE_11)
def test_named_sets_are_those_of_the_paper(name: str) -> None:
    assert {layer + 1 for layer in dense(plan(24, named=name))} == TABLE_11[name]


def test_the_other_two_sets_and_few_layers() -> None:
    assert dense(plan(24, named="all_cheap")) == [] and dense(plan(24, named="all_anchor")) == list(range(24))
    for count in range(1, 8):
        for name in LAYOUTS:
            found = anchors_of(name, count)
            assert found <= set(range(count)) and bool(found) == (name != "all_cheap"), (name, count)


@pytest.mark.parametrize(
    ("layers", "ratio", "phase", "expected"),
    [
        (8, "3", "last", [3, 7]),
        (8, "3", "first", [0, 4]),
        (8, "3", "1", [1, 5]),
        (10, "3", "last", [3, 7]),  # what is left over has no anchor
        (10, "3", "first", [0, 4]),
        (36, "6", "last", [6, 13, 20, 27, 34]),
        (8, "24", "last", [7]),  # one at least
        (8, "24", "first", [0]),
        (8, "24", "20", [7]),
        (5, "0", "last", [0, 1, 2, 3, 4]),
        (5, "inf", "last", []),
    ],
)
def test_ratios(layers: int, ratio: str, phase: str, expected: list[int]) -> None:
    assert dense(plan(layers, ratio=ratio, phase=phase)) == expected


def test_a_pattern_repeats() -> None:
    made = plan(5, repeat=["gated", "window:128", "dense"])
    assert [(spec.selector, spec.blocks) for spec in made.layers] == [
        ("seer", 16), ("window", 2), ("dense", None), ("seer", 16), ("window", 2),
    ]  # fmt: skip


def test_anchors_are_the_first_of_a_ranking() -> None:
    assert dense(plan(anchors=2, ranking=[5, 1, 7])) == [1, 5]


def test_works_have_budgets_of_their_own() -> None:
    made = plan(4, ratio="1", cheap="window:256", anchor="gated")
    assert made.code == "4L:2window256b64+2seer1024b64"
    assert plan(4, ratio="1", cheap="gated:256").code == "4L:2seer256b64+2dense"


def test_single_layers_come_after_the_layout() -> None:
    made = plan(8, SelectorConfig("seer", 1024, dense_layers=1, layers={"7": "quest"}), ratio="3")
    assert [spec.selector for spec in made.layers] == [
        "dense",
        "seer",
        "seer",
        "dense",
        *["seer"] * 3,
        "quest",
    ]


def test_only_layers_with_full_attention_are_planned() -> None:
    mixers = ["linear", "linear", "linear", "attention"] * 4
    assert [spec.selector for spec in plan(mixers, ratio="1").layers if spec.mixer == "attention"] == [
        "seer", "dense", "seer", "dense",
    ]  # fmt: skip
    assert plan(mixers, ratio="1").code == "16L:12linear+2seer1024b64+2dense"
    with pytest.raises(ConfigError, match=r"^plan.ratio=3: this model has no layer with full attention"):
        plan(["linear", "sliding"], ratio="3")


def test_the_id_is_of_what_is_decoded() -> None:
    quarter = plan(24, named="quarter")
    assert quarter.id == plan(24, ratio="3").id == f"24L:18seer1024b64+6dense@{quarter.digest}"
    assert quarter.id != plan(24, ratio="3", phase="first").id, "the same code"
    assert quarter.id == "24L:18seer1024b64+6dense@e82468d4c74e"
    assert plan(ratio="0").id == plan(selector=SelectorConfig()).id == "8L:dense"
    assert plan(ratio="inf").id == plan().id == "8L:seer1024b64"


def test_equal_reads() -> None:
    """At that length the layers together read what they would with the budget in each."""
    for options in (
        {"ratio": "7"},
        {"named": "first"},
        {"ratio": "3", "anchor": "gated:3072"},
        {"ratio": "inf"},
    ):
        made = plan(8, equal_at=4096, **options)
        read = [4096 if spec.blocks is None else 64 * spec.blocks for spec in made.layers]
        assert abs(sum(read) - 8 * 1024) <= 8 * 32, options
    assert plan(ratio="0", equal_at=4096).id == "8L:dense"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchors": 9, "ranking": list(range(8))}, "plan.anchors=9: plan.ranking has 8 layers"),
        (
            {"anchors": 1, "ranking": [3, 8]},
            "plan.ranking=[3, 8]: this model has no layer 8 with full attention",
        ),
        ({"repeat": ["gated"] * 9}, "plan.repeat="),
        ({"ratio": "3", "cheap": "gdn"}, "plan.cheap=gdn: must be one of gated, dense, seer"),
        (
            {"ratio": "1", "equal_at": 4096},
            "plan.equal_at=4096: 4 of 8 layers alone read 16,384 of the 8,192",
        ),
        ({"ratio": "1", "cheap": "seer:512", "equal_at": 4096}, "plan.equal_at=4096: no layer is without"),
    ],
)
def test_what_layers_cannot_have(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(**options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_dense_whatever_the_model() -> None:
    assert is_dense(SEER, PlanConfig(ratio="0")) and is_dense(SEER, PlanConfig(named="all_anchor"))
    assert is_dense(SelectorConfig(), PlanConfig(ratio="3"))
    assert not is_dense(SelectorConfig(), PlanConfig(ratio="3", cheap="window"))
    assert not is_dense(SEER, PlanConfig(ratio="0", anchor="gated")) and not is_dense(SEER, PlanConfig())
    assert not is_dense(SelectorConfig("seer", layers={"0": "quest"}), PlanConfig(ratio="0"))
