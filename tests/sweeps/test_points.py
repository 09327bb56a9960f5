"""From options with several values to the points of a sweep."""

from __future__ import annotations

import pytest

from seer_ray.config.compose import compose, from_yaml, to_yaml
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SweepConfig
from seer_ray.sweeps.points import expand, merged, points_of

BUDGET = compose().selector.budget
"""Of the default task."""
SEER, QUEST, WINDOW = f"seer-{BUDGET}", f"quest-{BUDGET}", f"window-{BUDGET}"


def slugs(*overrides: str) -> list[str]:
    return [point.slug for point in points_of(expand(overrides))]


def baselines(*overrides: str) -> dict[str, str]:
    return {point.slug: point.baseline for point in points_of(expand(overrides))}


def test_all_combinations_and_one_baseline_first() -> None:
    points = points_of(expand(["selector=seer,quest", "selector.budget=256,512"]))
    assert [point.slug for point in points] == ["dense", "seer-256", "seer-512", "quest-256", "quest-512"]
    assert {point.baseline for point in points} == {"dense"}
    quest = points[-1]
    assert (quest.config.selector.name, quest.config.selector.budget) == ("quest", 512)
    assert quest.changes == {"selector.name": "quest", "selector.budget": 512}


def test_dense_has_no_budget() -> None:
    assert slugs("selector=dense,quest", "selector.budget=256,512") == ["dense", "quest-256", "quest-512"]
    assert slugs("selector=dense,quest", "engine.block_size=32,64") == [
        "dense", f"quest-{BUDGET}-block_size=32", f"quest-{BUDGET}-block_size=64",
    ]  # fmt: skip
    assert slugs("selector.layers={0: dense},{0: quest}", "selector=dense") == [
        "dense", f"dense-{BUDGET}-layers=_0_quest",
    ]  # fmt: skip


def test_a_baseline_for_each_thing_that_is_compared() -> None:
    assert baselines("sampling.temperature=0.0,0.5", "selector=quest") == {
        "dense-temperature=0.0": "dense-temperature=0.0",
        "dense-temperature=0.5": "dense-temperature=0.5",
        f"quest-{BUDGET}-temperature=0.0": "dense-temperature=0.0",
        f"quest-{BUDGET}-temperature=0.5": "dense-temperature=0.5",
    }
    assert baselines("selector=quest,window", "sweep.baseline=false") == {QUEST: "", WINDOW: ""}


def test_two_budgets() -> None:
    """A baseline for each thinking budget, as it decides every row."""
    found = baselines("sampling.thinking_budget=256,null", "selector.budget=208,416")
    assert found == {
        f"{name}-think={budget}": f"dense-think={budget}"
        for budget in ("256", "null")
        for name in ("dense", "seer-208", "seer-416")
    }


def test_points_by_name_and_named_sweeps() -> None:
    points = "sweep.points=['selector=quest selector.budget=512',{selector:window}]"
    assert slugs(points) == ["dense", "quest-512", WINDOW]
    assert slugs(points, "seed=1,2")[3:] == [
        "quest-512-seed=0", f"{WINDOW}-seed=0", f"{SEER}-seed=1", f"{SEER}-seed=2",
    ]  # fmt: skip
    given = points_of(expand([points], points=["selector=oracle"]))
    assert [point.slug for point in given] == [*slugs(points), f"oracle-{BUDGET}"]
    ranked = ["dense", f"oracle-{BUDGET}", QUEST, WINDOW, f"random-{BUDGET}"]
    assert slugs("sweep=selectors") == ranked
    assert slugs("sweep=selectors", "selector=quest,window") == ["dense", QUEST, WINDOW]


def test_layer_plans_have_one_dense_baseline() -> None:
    ratios = [f"{SEER}-ratio={ratio}" for ratio in ("1", "3", "6", "inf")]
    assert slugs("plan.ratio=0,1,3,6,inf") == ["dense", *ratios]
    assert slugs("sweep=ratios") == ["dense", *ratios]
    assert set(baselines("plan.named=even,last", "plan.cheap=window").values()) == {"dense"}
    assert slugs("plan.anchors=1,2", "plan.ranking=[3,1,2]")[1:] == [f"{SEER}-anchors=1", f"{SEER}-anchors=2"]
    assert len(slugs("sweep=placements")) == 10
    dense, sparse = points_of(expand(["plan.ratio=0,3", "plan.equal_at=4096"]))
    assert dense.changes["plan.ratio"] is None and sparse.changes["plan.ratio"] == "3"


def test_a_sweep_that_is_written_down_is_the_same_sweep() -> None:
    config = expand(["name=x", "selector=quest,window", "selector.budget=256,512", "task=program"])
    read = from_yaml(to_yaml(config), job=SweepConfig)
    assert read == config and points_of(read) == points_of(config)
    assert expand([], read) == config


def test_text_with_braces_stays_as_it_is() -> None:
    sweep = expand(["selector=quest", r"task.system='\${oc.env:HOME}',b"])
    assert {point.config.task.system for point in points_of(sweep)} == {"${oc.env:HOME}", "b"}
    assert {point.changes["task.system"] for point in points_of(sweep)} == {"${oc.env:HOME}", "b"}
    assert expand([], from_yaml(to_yaml(sweep), job=SweepConfig)) == sweep


def test_settings_of_a_task_reach_the_points() -> None:
    """Its budget was once lost where a selector was chosen for a point."""
    points = points_of(expand(["task=program", "selector=quest,window"]))
    assert {point.config.selector.budget for point in points[1:]} == {BUDGET}
    assert {point.config.samples for point in points} == {2}


def test_a_sweep_that_is_gone_on_with_keeps_what_was_begun() -> None:
    before = expand(["name=x", "selector=quest", "selector.budget=256,512"])
    now = expand(["name=x", "selector=quest,window", "selector.budget=512,1024", "engine.max_batch=3"])
    names = [point["name"] for point in merged(before, now, {"quest-256"}, "runs/x").sweep.points]
    assert names == ["dense", "quest-256", "quest-512", "quest-1024", "window-512", "window-1024"]
    kept = merged(before, now, (), "runs/x")
    assert [point["name"] for point in kept.sweep.points] == [n for n in names if n != "quest-256"]
    assert {point.config.engine.max_batch for point in points_of(kept)} == {3}
    with pytest.raises(ConfigError, match=r"^runs/x: made with other settings: seed: 3 here, 0"):
        merged(before, expand(["selector=quest,window", "seed=3"]), (), "runs/x")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["selector=quest"], "nothing to sweep: give an option several values"),
        (["cluster.workers=1,2", "seed=1,2"], "cluster.workers=1,2: must be a single value here"),
        (["selector=qest,dense"], "selector=qest: no such choice"),
        (["selector.buget=1,2"], "selector.buget=1: no such option; did you mean selector.budget?"),
        (["selector.budget=12,512"], "selector.budget=12: must be at least two blocks"),
        (["selector=window,quest", "selector.threshold=0.01"], "selector.threshold=0.01: window gives"),
        (["seed=1,2", "sweep.rund=3"], "sweep.rund=3: no such option; did you mean sweep.round?"),
        (["sweep=bugets"], "sweep=bugets: no such choice"),
        (["sweep.points=[3]"], r"sweep.points[0]=3: must be text such as 'selector=quest'"),
        (['sweep.points=["task.system=\'a"]'], "sweep.points[0]=task.system='a: No closing quotation; close"),
        (["sweep.points=[{sweep.round: 3}]"], r"sweep.points[0]: sweep.round is about the sweep"),
    ],
)  # fmt: skip
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        expand(overrides)
    assert str(error.value).startswith(message)


def test_speculation_is_a_point_like_any_other() -> None:
    """Compared with dense decoding, which drafts nothing; one drafter where nothing is drafted."""
    assert baselines("engine.speculate=0,4,auto") == {
        "dense": "dense", SEER: "dense", f"{SEER}-speculate=4": "dense", f"{SEER}-speculate=auto": "dense",
    }  # fmt: skip
    assert baselines("engine.speculate=0,4", "engine.drafter=selector,ngram,both", "selector=seer,quest") == {
        "dense": "dense",
        SEER: "dense",
        QUEST: "dense",
        f"{SEER}-speculate=4": "dense",
        f"{QUEST}-speculate=4": "dense",
        "ngram-speculate=4": "dense",
        f"ngram-{SEER}-speculate=4": "dense",
        f"ngram-{QUEST}-speculate=4": "dense",
    }
    assert baselines("engine.speculate=0,4", "engine.drafter=ngram", "selector=dense") == {
        "dense": "dense", "ngram-speculate=4": "dense",
    }  # fmt: skip
