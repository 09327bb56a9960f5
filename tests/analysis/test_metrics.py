from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from results.sample import row
from scipy import stats

from seer_ray.analysis import metrics
from seer_ray.analysis.clustered import ClusteredMean, ratio
from seer_ray.analysis.metrics import (
    COLUMNS,
    METRICS,
    live_fields,
    summary_lines,
    tracked,
)
from seer_ray.analysis.rows import Rows, Run, Sample, Totals, majority, pass_at_k
from seer_ray.analysis.sequential import Saved
from seer_ray.results import schema
from seer_ray.results.speed import Speed


def summarise(rows: pa.Table, *more: Any, **named: Any) -> dict[str, Any]:
    """In batches of two rows, so that none is alone and none is whole."""
    return metrics.summarise(rows.to_batches(2), *more, **named)


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


def test_all_right_is_no_certainty() -> None:
    """Wilson's interval of 16 of 16, at Student's quantile; and what the terminal says of it."""
    found = summarise(graded({str(i): [True] for i in range(16)}))
    t2 = stats.t.ppf(0.975, 15) ** 2
    assert (found["accuracy/low"], found["accuracy/high"]) == (pytest.approx(16 / (16 + t2)), 1.0)
    assert summary_lines(found)["accuracy"] == "100.0 % (77.9 to 100.0)"


def test_the_asked_form_stands_beside_any_form() -> None:
    forms = [(True, True), (True, False), (False, True), (None, None)]
    rows = [row("a", i, correct=right, in_form=form) for i, (right, form) in enumerate(forms)]
    found = summarise(table(*rows))
    assert found["form/rate"] == pytest.approx(2 / 3) and found["accuracy/strict"] == pytest.approx(1 / 3)
    assert found["accuracy/avg"] == pytest.approx(2 / 3)
    said = "66.7 % of the completions have it · 33.3 % right counting only those"
    assert summary_lines(found)["asked form"] == said
    with_error = summarise(table(*rows[:3], failed("b", 0)))
    assert with_error["accuracy/strict"] == 0.25, "as accuracy counts"
    assert "form/rate" not in summarise(graded({"a": [True]}))


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


def test_live_metrics_are_the_final_ones() -> None:
    random = np.random.default_rng(0)
    totals, rows = Totals(), []
    for i in range(300):
        problem, correct = str(random.integers(20)), [True, False, None][random.integers(3)]
        error = bool(random.random() < 0.1)
        rows.append(failed(problem, i) if error else row(problem, i, correct=correct))
    found = summarise(table(*rows))
    for batch in table(*rows).to_batches(7):
        totals.add(batch)
    live = live_fields(totals)
    for metric in METRICS:
        if metric.live:
            assert live[metric.live] == found.get(metric.name)
    counts: dict[str, list[int]] = {}
    for r in rows:
        if r.get("error") or r["correct"] is not None:
            counts.setdefault(r["problem_id"], []).append(bool(r["correct"]))
    samples, mean = sum(map(len, counts.values())), live["accuracy"]
    assert mean == pytest.approx(sum(map(sum, counts.values())) / samples)
    spread = sum((sum(c) - len(c) * mean) ** 2 for c in counts.values())
    assert live["accuracy_se"] == pytest.approx(math.sqrt(len(counts) / (len(counts) - 1) * spread) / samples)


def test_live_metrics_begin_with_nothing() -> None:
    totals = Totals()
    assert set(live_fields(totals).values()) == {None}
    totals.add(Totals.batch([row("a", 0, correct=True, error=None)]))
    assert live_fields(totals)["accuracy"] == 1.0 and live_fields(totals)["accuracy_se"] is None
    totals.add(Totals.batch([failed("b", 0)]))
    assert live_fields(totals)["accuracy"] == 0.5 and live_fields(totals)["accuracy_se"] is not None


def test_mean_attended_is_per_layer_head_and_step() -> None:
    """Two rows of a model with 3 layers and 2 heads, read half densely: by hand."""
    totals = Totals()
    for context in (range(10, 15), range(4, 6)):
        available = 6 * sum(context)
        lengths = {"prompt_tokens": context[0], "completion_tokens": len(context)}
        reads = {"attended_kv": available // 2, "available_kv": available}
        totals.add(Totals.batch([row("a", error=None, **lengths, **reads)]))
    assert totals.sparsity == 0.5
    assert totals.mean_attended == pytest.approx((60 + 9) / 7 / 2)
    assert Totals().mean_attended is None


def test_what_came_of_drafts() -> None:
    """Seven tokens in three passes, five in two (an accepted one ends the chain), and a chain without."""
    rows = [
        row(
            "a",
            0,
            completion_tokens=7,
            drafted=[3, 3, 2, 0],
            accepted=[3, 1, 0, 0],
            draft_kv=20,
            attended_kv=50,
        ),
        row(
            "a",
            1,
            completion_tokens=5,
            drafted=[2, 2, 2, 0],
            accepted=[2, 2, 0, 0],
            draft_kv=10,
            attended_kv=30,
        ),
        row("b", 0, completion_tokens=9, attended_kv=20),
    ]
    found = summarise(table(*rows))
    drafts = {
        name.removeprefix("speculation/"): value for name, value in found.items() if "speculation" in name
    }
    assert drafts == {
        "acceptance": 8 / 14,
        "acceptance_at_1": 1.0,
        "acceptance_at_2": 0.6,
        "acceptance_at_3": 0.0,
        "tokens_per_pass": 12 / 5,
        "draft_reads": 0.3,
    }
    assert summary_lines(found)["drafts"].startswith("57.1 % accepted · 2.40 tokens for each dense pass")
    assert (
        summarise(table(*rows), engines={"decode_s": 4.0, "draft_s": 1.0})["speculation/draft_time"] == 0.25
    )
    assert not [name for name in summarise(table(row("a"))) if "speculation" in name]


def test_more_than_dense_attention_may_be_read() -> None:
    found = summarise(table(row("a", attended_kv=120, available_kv=100)))
    assert "20.0 % more than dense" in summary_lines(found)["attention"]


def test_a_mean_kept_up_to_date_is_that_of_all_values() -> None:
    random, mean = np.random.default_rng(0), ClusteredMean()
    assert mean.mean is None and mean.stderr is None
    sums, counts = np.zeros(9), np.zeros(9)
    for problem, value in zip(random.integers(9, size=200), random.random(200), strict=True):
        mean.add(pa.array([str(problem)]), np.array([value]))
        sums[problem] += value
        counts[problem] += 1
    value, stderr = ratio(sums, counts)
    assert (mean.mean, mean.stderr) == pytest.approx((float(value), float(stderr)))


def test_measured_speed_and_counters_of_engines() -> None:
    engines = {"step_s": 5.0, "decode_s": 4.0, "new_tokens": 80, "decode_bytes": 8e9, "decode_floor_s": 1.0}
    found = summarise(table(row("a")), Speed(100, 10.0), engines)
    assert {
        name: found[name] for name in found if name.startswith(("speed/", "time/engine", "time/decoding"))
    } == {
        "time/decoding_s": 10.0,
        "time/engine_s": 5.0,
        "time/engine_decode_s": 4.0,
        "speed/tokens_per_s": 10.0,
        "speed/engine_decode_tokens_per_s": 20.0,
        "speed/engine_decode_gb_per_s": 2.0,
        "speed/engine_decode_of_copy_rate": 0.25,
    }
    assert not [name for name in summarise(table(row("a"))) if name.startswith("speed/")]


def test_the_table_names_the_columns_that_it_reads() -> None:
    """Each metric of its own columns alone: what it reads besides is not there."""
    whole = table(row("a", 0), row("a", 1, correct=False), failed("b", 0))
    totals = Totals()
    for batch in whole.to_batches():
        totals.add(batch)
    for metric in METRICS:
        rows = Rows({*metric.columns, "error"})
        for batch in whole.to_batches():
            rows.add(batch)
        metric.of(Run(totals, rows))
        assert set(metric.columns) <= set(schema.NAMES)


def test_stderr_is_the_spread_of_repeated_experiments() -> None:
    """Samples of a problem share its difficulty: a naive standard error would be far too small."""
    random = np.random.default_rng(1)
    means: list[float] = []
    claimed: list[float] = []
    for _ in range(400):
        accuracy = ClusteredMean()
        for problem, chance in enumerate(random.beta(0.5, 0.5, size=40)):
            accuracy.add(pa.array([str(problem)] * 8), (random.random(8) < chance).astype(float))
        assert accuracy.mean is not None and accuracy.stderr is not None
        means.append(accuracy.mean)
        claimed.append(accuracy.stderr)
    assert np.mean(claimed) == pytest.approx(np.std(means), rel=0.1)
    naive = math.sqrt(0.25 / 320)
    assert np.std(means) > 1.8 * naive


def test_where_samples_are_taken_until_it_is_decided() -> None:
    """Accuracy and pass@k are of those samples that all problems have, the majority is of all."""
    rows = [row("a", n, correct=n > 1, extracted_answer="1" if n > 1 else str(n + 5)) for n in range(6)]
    rows += [row("b", n, correct=True, extracted_answer="2") for n in range(2)]
    found = summarise(table(*rows), first=2, saved=Saved(1, 4, 12))
    assert (found["accuracy/avg"], found["accuracy/pass_at_2"]) == (0.5, 0.5)
    assert "accuracy/pass_at_4" not in found and found["accuracy/majority_at_6"] == 1.0
    assert {name: value for name, value in found.items() if name.startswith("sequential/")} == {
        "sequential/decided": 1,
        "sequential/saved_samples": 4,
        "sequential/saved_tokens": 12,
    }


def test_thinking_tokens_where_they_are_known() -> None:
    rows = [row("a", 0, thinking_tokens=10, thinking_forced=True), row("a", 1, thinking_tokens=30)]
    found = summarise(table(*rows, row("b"), failed("b", 1)))
    assert (found["thinking/mean_tokens"], found["thinking/forced_rate"]) == (20, 1)
    assert not [name for name in summarise(table(row("b"))) if name.startswith("thinking/")]


def test_mlflow_is_told_nothing_twice() -> None:
    found = {
        "accuracy/avg": 0.5,
        "accuracy/avg_without_errors": 0.5,
        "accuracy/pass_at_1": 0.5,
        "accuracy/pass_at_4": 0.75,
        "accuracy/majority_at_1": 0.5,
        "kv/sparsity": 0.9,
        "kv/read_rate": 0.1,
        "rows/errors": 0,
    }
    assert set(tracked(found)) == {"accuracy/avg", "accuracy/pass_at_4", "kv/sparsity", "rows/errors"}
    assert "accuracy/avg_without_errors" in tracked(found | {"rows/errors": 2})
