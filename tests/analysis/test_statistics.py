from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from results.sample import row

from seer_ray.analysis.statistics import COLUMNS, Accuracy, Sample, majority, pass_at_k, summarise
from seer_ray.results import schema


def table(*rows: dict[str, Any]) -> pa.Table:
    return schema.table(rows).select(COLUMNS)


def graded(grades: dict[str, list[bool | None]], **changes: Any) -> pa.Table:
    return table(*(row(p, i, correct=g, **changes) for p, gs in grades.items() for i, g in enumerate(gs)))


def failed(problem: str, sample: int) -> dict[str, Any]:
    changes = {"completion_tokens": 0, "attended_kv": 0, "available_kv": 0, "finish_reason": "error"}
    return row(problem, sample, correct=None, extracted_answer=None, error="the worker died", **changes)


def test_avg_at_k() -> None:
    found = summarise(graded({"a": [True, False], "b": [True, True]}))
    assert found["accuracy/avg"] == found["accuracy/avg_without_errors"] == 0.75
    assert found["rows/total"] == 4 and found["rows/problems"] == 2
    # Cluster-robust by hand: residuals of the problems are -0.5 and +0.5.
    assert found["accuracy/stderr"] == pytest.approx(math.sqrt(2 * (0.5**2 + 0.5**2)) / 4)


def test_errors_are_wrong_and_ungraded_rows_count_nowhere() -> None:
    rows = [row("a", 0), row("a", 1), failed("a", 2), row("a", 3, correct=None, grade_error="timeout")]
    found = summarise(table(*rows))
    assert found["accuracy/avg"] == pytest.approx(2 / 3)
    assert found["accuracy/avg_without_errors"] == 1.0
    assert (found["rows/errors"], found["rows/ungraded"], found["rows/total"]) == (1, 1, 4)
    assert found["length/mean_tokens"] == 3, "of the completions that there are"
    assert found["accuracy/no_answer_rate"] == 0
    assert "accuracy/stderr" not in found, "one problem has no spread"


def test_what_is_not_known_is_absent() -> None:
    found = summarise(graded({"a": [None], "b": [None]}))
    assert not [name for name in found if name.startswith("accuracy/")]
    assert found["rows/ungraded"] == 2
    assert summarise(table())["rows/total"] == 0
    only_errors = summarise(table(failed("a", 0)))
    assert not [name for name in only_errors if name.startswith(("accuracy/", "length/", "kv/"))]
    assert only_errors["rows/errors"] == 1


def test_lengths_and_kv() -> None:
    lengths = [1, 2, 3, 10]
    rows = [
        row(str(n), 0, completion_tokens=n, finish_reason="length" if n == 10 else "stop") for n in lengths
    ]
    found = summarise(table(*rows))
    assert found["length/mean_tokens"] == 4 and found["length/median_tokens"] == 2.5
    assert found["length/max_tokens"] == 10 and found["length/p90_tokens"] == pytest.approx(7.9)
    assert found["length/truncation_rate"] == 0.25
    assert found["kv/attended_per_token"] == 120 / 16
    assert found["kv/sparsity"] == 0.5 and found["kv/attended"] == 120 and found["kv/available"] == 240


def test_sums_do_not_overflow() -> None:
    huge = 2**62
    found = summarise(table(*(row("a", i, attended_kv=huge - 1, available_kv=huge) for i in range(4))))
    assert found["kv/attended"] == 4 * (huge - 1)


def test_names_are_legal_in_mlflow() -> None:
    found = summarise(graded({"a": [True] * 5, "b": [False] * 3}))
    assert all(re.fullmatch(r"[A-Za-z0-9_\-.:/]+", name) for name in found)
    assert all(isinstance(value, (int, float)) for value in found.values())


@pytest.mark.parametrize("n, c", [(n, c) for n in range(1, 7) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_all_draws(n: int, c: int) -> None:
    for k in range(1, n + 1):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


def test_pass_at_k_of_a_table() -> None:
    found = summarise(graded({"a": [True, False, False], "b": [False] * 3}))
    assert {name for name in found if "pass_at" in name} == {f"accuracy/pass_at_{k}" for k in (1, 2, 3)}
    assert found["accuracy/pass_at_1"] == pytest.approx(1 / 6)
    assert found["accuracy/pass_at_2"] == pytest.approx((2 / 3) / 2)
    assert found["accuracy/pass_at_3"] == 0.5


def test_pass_at_k_says_when_problems_lack_samples() -> None:
    found = summarise(graded({"a": [True, False], "b": [True, None], "c": [None, None]}))
    assert found["accuracy/pass_at_1"] == 0.75 and found["accuracy/pass_at_1_problems"] == 2
    assert found["accuracy/pass_at_2"] == 1.0 and found["accuracy/pass_at_2_problems"] == 1


def votes(*answers: str | None, right: str = "x", ungraded: str = "") -> list[Sample]:
    return [
        Sample(i, answer, None if answer and answer == ungraded else answer == right, False)
        for i, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    "samples, verdict",
    [
        (votes("x", "y", "x"), True),
        (votes("y", "x", "y"), False),
        (votes("x", "y"), True),
        (votes("y", "x"), False),
        (votes("y", "x")[::-1], False),
        (votes(None, None, "x"), True),
        (votes(None, None), False),
        (votes("y", "y", "x", ungraded="y"), None),
        ([Sample(0, None, None, True)], False),
        ([Sample(0, None, None, True), Sample(1, "x", True, False)], True),
        ([Sample(0, None, None, False)], None),
        ([Sample(0, "x", None, False), Sample(1, "x", True, False)], True),
    ],
)
def test_majority(samples: list[Sample], verdict: bool | None) -> None:
    assert majority(samples) is verdict


def test_majority_of_a_table() -> None:
    rows = [
        row("a", i, extracted_answer=answer, correct=answer == "1")
        for i, answer in enumerate(["1", "2", "1"])
    ]
    rows += [row("b", i, extracted_answer="3", correct=False) for i in range(3)]
    assert summarise(table(*rows))["accuracy/majority_at_3"] == 0.5


def test_no_answer_rate() -> None:
    rows = [row("a", 0), row("a", 1, extracted_answer=None, correct=False)]
    assert summarise(table(*rows))["accuracy/no_answer_rate"] == 0.5


def test_live_accuracy_is_the_final_one() -> None:
    random = np.random.default_rng(0)
    live, rows = Accuracy(), []
    for i in range(300):
        problem, correct = str(random.integers(20)), [True, False, None][random.integers(3)]
        error = bool(random.random() < 0.1)
        rows.append(failed(problem, i) if error else row(problem, i, correct=correct))
        live.add(problem, None if error else correct, error)
    found = summarise(table(*rows))
    assert live.mean == pytest.approx(found["accuracy/avg"])
    counts: dict[str, list[int]] = {}
    for r in rows:
        if r.get("error") or r["correct"] is not None:
            counts.setdefault(r["problem_id"], []).append(bool(r["correct"]))
    assert live.mean is not None
    spread = sum((sum(c) - len(c) * live.mean) ** 2 for c in counts.values())
    expected = math.sqrt(len(counts) / (len(counts) - 1) * spread) / live.samples
    assert live.stderr == pytest.approx(expected) == pytest.approx(found["accuracy/stderr"])


def test_live_accuracy_begins_with_nothing() -> None:
    live = Accuracy()
    live.add("a", None)
    assert live.mean is None and live.stderr is None
    live.add("a", True)
    assert live.mean == 1.0 and live.stderr is None
    live.add("b", None, error=True)
    assert live.mean == 0.5 and live.stderr is not None


def test_stderr_is_the_spread_of_repeated_experiments() -> None:
    """Samples of a problem share its difficulty: a naive standard error would be far too small."""
    random = np.random.default_rng(1)
    means: list[float] = []
    claimed: list[float] = []
    for _ in range(400):
        accuracy = Accuracy()
        for problem, chance in enumerate(random.beta(0.5, 0.5, size=40)):
            for right in random.random(8) < chance:
                accuracy.add(str(problem), bool(right))
        assert accuracy.mean is not None and accuracy.stderr is not None
        means.append(accuracy.mean)
        claimed.append(accuracy.stderr)
    assert np.mean(claimed) == pytest.approx(np.std(means), rel=0.1)
    naive = math.sqrt(0.25 / 320)
    assert np.std(means) > 1.8 * naive
