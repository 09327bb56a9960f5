"""Numbers as reference answers: with the digits that they were written with."""

from decimal import Decimal

import pyarrow
import pytest
from pyarrow import parquet

from seer_ray.config.options import TaskConfig
from seer_ray.tasks.datasets import answer_text, load_problems


def problem(data):
    return load_problems(TaskConfig(data=str(data)))[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "1e-05"),
        (1e23, "100000000000000000000000"),
        (Decimal("10.50"), "10.50"),
        (Decimal("0.0000001"), "0.0000001"),
        (Decimal("18.00"), "18"),
        (Decimal("NaN"), None),
    ],
)
def test_a_number_as_text(value, text):
    assert answer_text(value) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.00001", "0.00001"),
        ("1e-05", "1e-05"),
        ("0.10", "0.10"),
        ("18.0", "18"),
        ("3e8", "300000000"),
        ("1e23", "100000000000000000000000"),
        ("0.12345678901234567890", "0.12345678901234567890"),
        ("12345678901234567890", "12345678901234567890"),
        ("1e400", "1e400"),
        ("1e999999999", "1e999999999"),
        ("-1.6E-19", "-1.6E-19"),
    ],
)
def test_numbers_in_json_keep_their_text(tmp_path, number, text):
    data = tmp_path / "a.jsonl"
    data.write_text(f'{{"question": "1+1?", "answer": {number}}}\n')
    assert problem(data).answer == text


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pyarrow.float32(), 0.1, "0.1"),
        (pyarrow.float32(), 1e-05, "1e-05"),
        (pyarrow.float32(), None, None),
        (pyarrow.float64(), 0.1, "0.1"),
        (pyarrow.decimal128(10, 2), Decimal("10.50"), "10.50"),
        (pyarrow.decimal128(20, 10), Decimal("0.0000001"), "0.0000001000"),
        (pyarrow.int64(), 2**62, str(2**62)),
    ],
)
def test_numbers_in_parquet_have_no_digits_of_their_own(tmp_path, kind, value, text):
    table = pyarrow.table({"question": ["1+1?"], "answer": pyarrow.array([value], kind)})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert problem(tmp_path / "a.parquet").answer == text
