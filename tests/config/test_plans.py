"""Options of layer plans: one layout at a time, and all of it known before a model is."""

from __future__ import annotations

import pytest

from seer_ray.config.command import command_line
from seer_ray.config.compose import choices, compose, from_yaml, to_yaml
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import PlanConfig


def test_a_ratio_is_a_number_or_inf_however_it_is_written() -> None:
    for text in ("ratio: 3", "ratio: '3'"):
        assert from_yaml(f"plan: {{{text}}}").plan == compose(["plan.ratio=3"]).plan == PlanConfig(ratio="3")
    assert (
        from_yaml("plan: {ratio: .inf}").plan == compose(["plan.ratio=inf"]).plan == PlanConfig(ratio="inf")
    )


@pytest.mark.parametrize("name", choices("plan"))
def test_presets_are_layouts(name: str) -> None:
    config = compose([f"plan={name}"])
    assert config.plan != PlanConfig() and from_yaml(to_yaml(config)) == config
    assert compose(["plan=null"], base=config).plan == PlanConfig()


def test_the_command_for_a_dense_run_has_no_plan() -> None:
    config = compose(["name=x", "plan=windows"])
    assert "plan.ratio=3" in command_line(config) and "plan.cheap=window" in command_line(config)
    assert command_line(config, "selector=dense", "plan=null").endswith("run selector=dense plan=null")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plan.ratio=x", "plan.ratio=x: must be a whole number, or inf for no anchor"),
        ("plan.ratio=-1", "plan.ratio=-1: must be a whole number"),
        (
            "plan.ratio=3 plan.named=even",
            "plan.named=even: plan.ratio is given as well; leave one of them out",
        ),
        ("plan.phase=first", "plan.phase=first: means nothing without plan.ratio"),
        ("plan.ratio=3 plan.phase=4", "plan.phase=4: must be first, last, or a place from 0 to 3"),
        ("plan.cheap=window", "plan.cheap=window: means nothing without plan.ratio or plan.named"),
        ("plan.equal_at=4096", "plan.equal_at=4096: means nothing without"),
        ("plan.ratio=3 plan.cheap=linear", "plan.cheap=linear: must be one of gated, dense, seer"),
        ("plan.ratio=3 plan.anchor=dense:5", "plan.anchor=dense:5: dense reads everything; leave :5 out"),
        ("plan.ratio=3 plan.cheap=window:8", "plan.cheap=window:8: must be at least two blocks"),
        ("plan.repeat=[gated,conv]", "plan.repeat=conv: must be one of gated"),
        ("plan.named=evn", "plan.named=evn: must be one of even, odd, top"),
        ("plan.anchors=3", "plan.anchors=3: needs plan.ranking; seer-ray gates shares writes one"),
        ("plan.anchors=1 plan.ranking=[1,1]", "plan.ranking=[1, 1]: has layer 1 twice"),
        ("plan.ratio=1 plan.equal_at=100", "plan.equal_at=100: must be above selector.budget="),
        (
            "plan.ratio=1 plan.equal_at=9999 selector.threshold=0.1",
            "plan.equal_at=9999: selector.threshold decides already what layers read",
        ),
        (
            "plan.ratio=1 plan.cheap=window selector.threshold=0.1",
            "selector.threshold=0.1: window gives blocks no share",
        ),
    ],
)
def test_what_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words.split())
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
