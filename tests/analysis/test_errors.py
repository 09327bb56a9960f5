"""Errors by kind, with examples."""

from __future__ import annotations

from results.sample import row

from seer_ray.analysis.errors import COLUMNS, error_kinds
from seer_ray.results import schema


def test_kinds_differ_in_more_than_numbers_and_names() -> None:
    long = [
        row(f"p{i}", error=f"problem 'p{i}' has {900 + i} tokens, of 512", correct=None) for i in range(5)
    ]
    dead = [row("q", 1, error="the worker died", correct=None, worker=None)]
    ungraded = [row("r", grade_error="timeout", correct=None)]
    found = error_kinds(schema.table([row("fine"), *dead, *long, *ungraded]).select(COLUMNS).to_batches(4))
    assert [(kind.kind, kind.reason, kind.rows) for kind in found] == [
        ("engine", "problem 'p0' has 900 tokens, of 512", 5),
        ("worker", "the worker died", 1),
        ("grader", "not graded: timeout", 1),
    ]
    assert found[0].text == "engine: problem 'p0' has 900 tokens, of 512 (5: p0/0, p1/0, p2/0, …)"
    assert found[1].text == "worker: the worker died (1: q/1)"
