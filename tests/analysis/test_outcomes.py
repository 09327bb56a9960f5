from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from results.sample import row

from seer_ray.analysis import estimates
from seer_ray.analysis.outcomes import COLUMNS, MisalignedError, Outcomes, align
from seer_ray.analysis.paired import pair
from seer_ray.results import schema


def table(*rows: dict[str, Any]) -> pa.Table:
    return schema.table(rows).select(COLUMNS)


def failed(problem: str, sample: int) -> dict[str, Any]:
    changes = {"completion_tokens": 0, "attended_kv": 0, "available_kv": 0, "finish_reason": "error"}
    return row(problem, sample, correct=None, extracted_answer=None, error="the worker died", **changes)


def one(*rows: dict[str, Any]) -> Outcomes:
    return align({"dense": table(*rows)})["dense"]


def test_alignment_is_by_problem_and_sample_whatever_the_order_of_rows() -> None:
    first = table(row("a", 0), row("a", 1, correct=False), row("b", 0), row("b", 1))
    second = table(row("b", 1, correct=False), row("b", 0), row("c", 0), row("a", 0, completion_tokens=9))
    found = align({"x": first, "y": second})
    assert found["x"].problems == found["y"].problems == ("a", "b", "c")
    assert found["x"].numbers == (0, 1)
    np.testing.assert_array_equal(found["x"].correct, [[1, 0], [1, 1], [np.nan, np.nan]])
    np.testing.assert_array_equal(found["y"].correct, [[1, np.nan], [1, 0], [1, np.nan]])
    assert found["y"].tokens[0, 0] == 9
    assert (found["x"].missing, found["y"].missing) == (2, 2)
    again = align({"x": first[::-1], "y": second[::-1]})
    assert again["y"].problems == ("a", "b", "c"), "the order of commits decides nothing"
    np.testing.assert_array_equal(again["y"].tokens, found["y"].tokens)


def test_errors_are_wrong_and_have_no_length() -> None:
    found = one(row("a", 0), failed("a", 1), row("b", 0, correct=None, grade_error="timeout"))
    np.testing.assert_array_equal(found.correct, [[1, 0], [np.nan, np.nan]])
    assert np.isnan(found.tokens[0, 1]) and np.isnan(found.truncated[0, 1])
    assert (found.errors, found.ungraded, found.missing) == (1, 1, 1)
    assert found.attended_share == 0.5


def test_missing_samples_are_in_no_rate() -> None:
    rows = [row("a", i, finish_reason="length" if i else "stop") for i in range(4)]
    found = one(*rows, row("b", 0, correct=False, extracted_answer=None))
    accuracy, cut = estimates.accuracy(found), estimates.proportion(found.truncated)
    assert accuracy and cut
    assert (accuracy.value, accuracy.samples, accuracy.problems) == (0.8, 5, 2)
    assert (cut.value, cut.samples) == (0.6, 5)


def test_what_is_not_there_is_none() -> None:
    assert one().attended_share is None
    assert estimates.accuracy(one(row("a", correct=None))) is None
    assert estimates.proportion(one(failed("a", 0)).truncated) is None


def test_refusals() -> None:
    with pytest.raises(MisalignedError, match="sample 1 of problem 'a' is there more than once"):
        one(row("a", 0), row("a", 1), row("a", 1))
    with pytest.raises(MisalignedError, match="several seeds"):
        one(row("a", 0), row("b", 0, seed=1))
    with pytest.raises(MisalignedError, match="not the same problems"):
        align({"x": table(row("0", reference="4")), "y": table(row("0", reference="5"))})
    with pytest.raises(ValueError, match="not aligned"):
        pair(one(row("a")), one(row("b")))
