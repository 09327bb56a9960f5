from __future__ import annotations

import math

import numpy as np
import pytest
from analysis.simulate import Case, draw
from analysis.test_outcomes import table
from hypothesis import given
from hypothesis import strategies as st
from results.sample import row

from seer_ray.analysis import multiple, pareto
from seer_ray.analysis.outcomes import align
from seer_ray.analysis.racing import Decision, Verdict
from seer_ray.analysis.recommend import Answer, Keeps, Recommendation, recommend
from seer_ray.analysis.runs import Contender, baseline_of, differing, labels
from seer_ray.results.speed import Speed

DENSE, FASTER = (99.0, 100.0, 101.0, 100.0), (250.0, 249.0, 250.0, 251.0)
"""Tokens per second of each turn."""
LOSSES = {"quest 4,096": 0.0, "quest 2,048": 0.0, "quest 1,024": 0.25, "window 2,048": 0.3}


def sweep(
    problems: int, samples: int, losses: dict[str, float] = LOSSES, longer: float = 1.1
) -> list[Contender]:
    """Dense and settings with these losses. A budget of 4,096 reads 40 % of the KV, and is 2.5x dense."""
    tables = {}
    for i, (name, loss) in enumerate({"dense": 0.0, **losses}.items()):
        dense, setting = draw(Case(problems, samples, 0.8, loss), seed=5, sweeps=1)
        right = dense[0] if name == "dense" else setting[0]
        share = 1.0 if name == "dense" else int(name.split()[1].replace(",", "")) / 10_240
        tokens = 100 if name == "dense" else round(100 * longer)
        rows = [
            row(
                f"p{p}",
                s,
                correct=bool(right[p, s]),
                completion_tokens=tokens,
                attended_kv=round(1000 * tokens * share),
                available_kv=1000 * tokens,
            )
            for p in range(problems)
            for s in range(samples)
        ]
        tables[name] = table(*rows)
        assert i < 9
    return [
        Contender(
            name=name,
            folder=f"runs/x/points/{name}",
            job="runs/x",
            options={"selector.name": name.split()[0], "selector.budget": budget(name)},
            outcomes=outcomes,
            speed=Speed(1000, 10.0, DENSE) if name == "dense" else Speed(1000, 4.0, FASTER),
            family=(("selector.name", name.split()[0]),),
        )
        for name, outcomes in align(tables).items()
    ]


def budget(name: str) -> int:
    return int(name.split()[1].replace(",", "")) if " " in name else 2048


def asked(problems: int, samples: int, losses: dict[str, float] = LOSSES) -> Recommendation:
    dense, *others = sweep(problems, samples, losses)
    return recommend(dense, others)


def test_the_cheapest_that_keeps_it() -> None:
    found = asked(1500, 4)
    assert (found.answer, found.choice) == (Answer.TAKE, "quest 2,048")
    keeps = {one.name: one.keeps for one in found.assessments}
    assert keeps == {
        "quest 4,096": Keeps.YES,
        "quest 2,048": Keeps.YES,
        "quest 1,024": Keeps.NO,
        "window 2,048": Keeps.NO,
    }
    assert "attention reads 20 % of the KV (at most 5.0x by bytes)" in found.sentence
    assert (
        found.sentence.startswith("Take quest 2,048: change in accuracy ") and " points (" in found.sentence
    )
    assert "decode 2.5x dense (2.5 to 2.5)" in found.sentence and "chains 10 % longer" in found.sentence
    assert "6,000 pairs of 1,500 problems" in found.rests_on and "4 settings compared" in found.rests_on
    best = found.assessments[1]
    assert best.byte_bound == pytest.approx(5) and best.speed.value == pytest.approx(2.5, rel=1e-2)
    assert best.cost.seconds == pytest.approx(110 * 4 / 1000), "longer chains cost their time"
    assert found.front_attended[0] == "quest 1,024" and "window 2,048" not in found.front_attended


def test_too_little_data_says_how_much_more() -> None:
    found = asked(40, 1, {"quest 2,048": 0.0})
    assert (found.answer, found.choice) == (Answer.MORE, None)
    more = found.assessments[0].more
    assert more and more.problems > 100 and more.at_least
    assert (
        found.sentence.startswith("Not enough data") and f"{more.problems:,} more problems" in found.sentence
    )


def test_none_keeps_it() -> None:
    found = asked(400, 2, {"quest 1,024": 0.25, "window 2,048": 0.4})
    assert (found.answer, found.choice) == (Answer.NONE, None)
    assert found.sentence.startswith("None keeps the accuracy: no setting loses less than 2 points.")
    assert "The nearest: quest 1,024" in found.sentence


def test_a_smaller_budget_waits_for_the_larger_one() -> None:
    """Fixed sequence: what stands behind a budget that fails is not claimed, however good it looks."""
    found = asked(1500, 4, {"quest 4,096": 0.25, "quest 2,048": 0.0})
    larger, smaller = found.assessments
    assert larger.keeps is Keeps.NO and smaller.test.shown and smaller.keeps is Keeps.UNKNOWN
    assert "larger budget is not decided" in smaller.why
    assert found.answer is not Answer.TAKE


def test_what_racing_stopped_stands() -> None:
    worse = Decision(Verdict.WORSE, "plainly", 30, 1e-4, 1.0)
    dense, quest = sweep(1500, 4, {"quest 2,048": 0.0})
    found = recommend(dense, [Contender(**{**vars(quest), "decided": worse})])
    assert found.assessments[0].keeps is Keeps.NO
    assert "racing stopped it: plainly" in found.assessments[0].why
    good = Decision(Verdict.GOOD, "plainly", 30, 1.0, 1e-4)
    dense, quest = sweep(40, 1, {"quest 2,048": 0.0})
    assert recommend(dense, [Contender(**{**vars(quest), "decided": good})]).choice == "quest 2,048"


def test_speeds_of_other_jobs_are_left_out_and_off_the_front() -> None:
    dense, quest = sweep(50, 1, {"quest 2,048": 0.0})
    quest = Contender(**{**vars(quest), "job": "runs/other"})
    found = recommend(dense, [quest])
    assert "decode" not in found.sentence and found.front_seconds == ("dense",)
    assert "; speed: measured in different jobs, not in turns under one load" in found.rests_on
    silent = Contender(**{**vars(quest), "speed": None})
    found = recommend(dense, [silent])
    assert "decode" not in found.sentence and "; speed: not measured" in found.rests_on


def test_nothing_in_common() -> None:
    outcomes = align({"dense": table(row("a")), "x": table(row("b"))})
    dense, other = (Contender(name, name, name, {}, o, None) for name, o in outcomes.items())
    with pytest.raises(ValueError, match="no graded sample in common"):
        recommend(dense, [other])


def test_front() -> None:
    costs = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0, "e": None, "f": math.nan, "g": 1.0}
    values = {"a": 0.5, "b": 0.7, "c": 0.7, "d": 0.6, "e": 0.9, "f": 0.9, "g": 0.5}
    assert pareto.front(costs, values) == ["a", "b"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_front_is_what_none_beats(points: list[tuple[int, int]]) -> None:
    names = [str(i) for i in range(len(points))]
    found = pareto.front(
        {n: float(c) for n, (c, _) in zip(names, points, strict=True)},
        {n: float(a) for n, (_, a) in zip(names, points, strict=True)},
    )
    beaten = [any(c2 <= c and a2 >= a and (c2, a2) != (c, a) for c2, a2 in points) for c, a in points]
    expected = {point for point, lost in zip(points, beaten, strict=True) if not lost}
    assert {points[int(name)] for name in found} == expected and len(found) == len(expected)


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=6))
def test_sequences_of_one_are_holm(p_values: list[float]) -> None:
    assert alone(p_values) == {str(i) for i in holm(p_values, 0.05)}


def test_holm_is_that_of_statsmodels() -> None:
    """On few examples: statsmodels collects garbage in each call, which takes long in a large process."""
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for p_values in ([0.04], [0.02, 0.024, 0.06], [0.001, 0.03, 0.012, 0.012, 0.2]):
        expected = np.flatnonzero(multitest.multipletests(p_values, 0.05, method="holm")[0])
        assert set(holm(p_values, 0.05)) == set(expected)
        assert alone(p_values) == {str(i) for i in expected}


def alone(p_values: list[float]) -> set[str]:
    """What is rejected where each hypothesis is a sequence of its own."""
    named = {str(i): p for i, p in enumerate(p_values)}
    return multiple.sequences(named, [[name] for name in named], 0.05)


def holm(p_values: list[float], alpha: float) -> list[int]:
    """Holm's procedure by its definition: the smallest that are left against alpha over how many are left."""
    rejected: list[int] = []
    for i in sorted(range(len(p_values)), key=p_values.__getitem__):
        if p_values[i] > alpha / (len(p_values) - len(rejected)) * (1 + 1e-12):
            break
        rejected.append(i)
    return rejected


def test_sequences() -> None:
    p = {"a": 0.02, "b": 0.001, "c": 0.04, "d": 0.04, "e": math.nan}
    assert multiple.sequences(p, [["a", "b", "c"]], 0.05) == {"a", "b", "c"}
    assert multiple.sequences(p, [["a", "e", "b"]], 0.05) == {"a"}
    assert multiple.sequences(p, [["a", "b"], ["d"]], 0.05) == {"a", "b", "d"}, "a share that is left goes on"
    assert multiple.sequences(p, [["a", "b"], ["e", "d"]], 0.05) == {"a", "b"}
    assert multiple.sequences({}, [[]], 0.05) == set()


def test_names_tell_settings_apart() -> None:
    dense = {"selector.name": "dense", "selector.budget": 64, "engine.block_size": 16, "seed": 0}
    quest = dense | {"selector.name": "quest", "selector.budget": 2048}
    assert labels([dense, quest], ["x", "y"]) == ["dense", "quest 2,048"]
    other = quest | {"seed": 1, "selector.threshold": 0.01}
    assert labels([quest, other], ["x", "y"]) == ["quest 2,048 seed=0", "quest 2,048 t0.01 seed=1"]
    shares = quest | {"selector.shares.0": 0.5, "selector.shares.1-3": 1.2}
    assert labels([quest, shares], ["x", "y"]) == ["quest 2,048", "quest 2,048 shares.0=0.5 shares.1-3=1.2"]
    many = quest | {f"selector.shares.{layer}": 0.5 for layer in range(5)}
    assert labels([quest, many], ["x", "y"]) == ["quest 2,048", "quest 2,048 5 shares"]
    assert labels([quest, quest], ["x", "y"]) == ["quest 2,048 (x)", "quest 2,048 (y)"]
    assert labels([quest, quest], ["x", "x"]) == ["quest 2,048 (x) #1", "quest 2,048 (x) #2"]
    assert differing([dense, quest]) == ["selector.name", "selector.budget"]


def test_the_baseline_differs_only_in_selection() -> None:
    dense, quest = sweep(3, 1, {"quest 2,048": 0.0})
    assert baseline_of([dense, quest]) is dense and baseline_of([quest]) is None
    warm = Contender(**{**vars(dense), "options": dense.options | {"sampling.temperature": 1.0}})
    assert baseline_of([dense, warm, quest]) is None
    assert baseline_of([dense, warm, quest], quest) is dense
