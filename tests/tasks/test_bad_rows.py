"""Rows that cannot be asked: each the fault of its row, with file and line, and nobody else's."""

import datetime
import decimal
import json

import pyarrow
import pytest
from pyarrow import parquet
from tasks.made import ROWS, faults, ids, load, refused, write_jsonl

GOOD = b'{"id": "good", "question": "a", "answer": "1"}'
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": ', "malformed JSON (Expecting value at column 13)"),
        (b"[1]", "must be a JSON object, is list"),
        (b'{"question": "\xff"}', "not UTF-8 (invalid start byte at byte 15)"),
        (b'{"question": ' + DEEP + b"}", "malformed JSON (nested too deep)"),
        (DEEP, "malformed JSON (nested too deep)"),
        (b'{"answer": ' + b"7" * 5000 + b"}", "malformed JSON (Exceeds the limit (4300 digits)"),
        (b'{"id": "x", "question": "a", "id": "y"}', "malformed JSON (the key 'id' twice in an object)"),
        (b'{"id": "x", "question": {"a": 1, "a": 2}}', "malformed JSON (the key 'a' twice in an object)"),
        ("{}".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_malformed_line_is_the_fault_of_its_row(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"\n\n" + line + b"\n")
    [(id, error)] = faults(tmp_path / "a.jsonl").items()
    assert id == "a.jsonl:3" and error.startswith(f"a.jsonl:3: {message}")
    # Without another row it is the file's.
    (tmp_path / "a.jsonl").write_bytes(line)
    assert refused(tmp_path / "a.jsonl").startswith(f"a.jsonl:1: {message}")


@pytest.mark.parametrize(
    ("id", "message"),
    [
        (None, "empty in a.jsonl:2"),
        (" ", "empty in a.jsonl:2"),
        (True, "must be text or a number, is bool in a.jsonl:2"),
        ([1], "must be text or a number, is list in a.jsonl:2"),
        ({"a": 1}, "must be text or a number, is a struct in a.jsonl:2"),
        (float("nan"), "must be text or a number, is nan in a.jsonl:2"),
        (float("inf"), "must be text or a number, is inf in a.jsonl:2"),
        ("x" * 1_000_000, "1,000,000 characters in a.jsonl:2; must be at most 1,024"),
        ("a\0b", "has a NUL character in a.jsonl:2, where other programs would end it"),
        ("a\ud83d", "has half a character, '\\ud83d' at 2, in a.jsonl:2"),
    ],
)
def test_an_id_that_names_nothing_is_the_fault_of_its_row(tmp_path, id, message):
    rows = [ROWS[0], {"id": id, "question": "1?", "answer": 1}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert faults(tmp_path / "a.jsonl") == {"a.jsonl:2": f"task.columns.id=id: {message}"}


@pytest.mark.parametrize(
    ("id", "expected"), [(7, "7"), (7.5, "7.5"), ("7", "7"), ("a b/ü\n", "a b/ü\n"), (2**70, str(2**70))]
)
def test_ids_that_are_kept(tmp_path, id, expected):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": id, "question": "1?", "answer": 1}))
    assert ids(load(tmp_path / "a.jsonl")) == [expected]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a\ud800b", "answer": 1}, "the prompt: has half a character, '\\ud800' at 6, in "),
        ({"question": "a", "answer": "\udfff"}, "task.columns.answer=answer: has half a character, "),
        ({"question": float("nan"), "answer": 1}, "task.columns.question=question: must be text, is nan in "),
        ({"question": float("inf"), "answer": 1}, "task.columns.question=question: must be text, is inf in "),
        ({"question": None, "answer": 1}, "task.columns.question=question: empty in "),
        ({"question": "", "answer": 1}, "task.columns.question=question: empty in "),
        (
            {"question": {"text": "a", "level": 1}, "answer": 1},
            "task.columns.question=question: is a struct in a.jsonl:2, with the fields text, level; "
            "name one, such as question.text",
        ),
        ({"question": [{"text": "a"}], "answer": 1}, "task.columns.question=question: is a struct in "),
        (
            {"question": "a", "answer": {"value": 7}},
            "task.columns.answer=answer: is a struct in a.jsonl:2, with the fields value; "
            "name one, such as answer.value",
        ),
        ({"question": "a", "answer": [{"value": 7}]}, "task.columns.answer=answer: is a struct in "),
        ({"question": "a", "answer": float("inf")}, "task.columns.answer=answer: must be text, is inf in "),
        ({"question": [{"role": "user", "content": "a\ud800"}], "answer": 1}, "the prompt: has half a char"),
        ({"question": [{"role": "user", "content": 7}], "answer": 1}, "a.jsonl:2: every message of the chat"),
        ({"question": "a"}, "task.columns.answer=answer: no column 'answer' in a.jsonl:2"),
        ({"answer": 1}, "task.columns.question=question: no column 'question' in a.jsonl:2"),
    ],
)
def test_a_value_that_is_no_text_is_the_fault_of_its_row(tmp_path, row, message):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [ROWS[0], {"id": "bad", **row}])))
    error = faults(tmp_path / "a.jsonl")["bad"]
    assert error.startswith(message) and "a.jsonl:2" in error


def test_a_question_may_hold_nul_and_numbers(tmp_path):
    rows = [{"id": 1, "question": "a\0b", "answer": 1}, {"id": 2, "question": 7, "answer": None}]
    found = load(write_jsonl(tmp_path / "a.jsonl", rows))
    assert [p.messages[0]["content"] for p in found] == ["a\0b", "7"] and not found[0].error


def parquet_column(kind, values, name="question"):
    columns = {"id": ["a", "b"], "question": ["x", "y"], "answer": ["1", "2"]}
    return pyarrow.table({**columns, name: pyarrow.array(values, kind)})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            parquet_column(pyarrow.binary(), [None, b"y"], "answer"),
            "task.columns.answer=answer: must be text, is bytes",
        ),
        (
            parquet_column(pyarrow.map_(pyarrow.string(), pyarrow.string()), [None, [("k", "v")]], "answer"),
            "task.columns.answer=answer: is a struct",
        ),
        (
            parquet_column(pyarrow.timestamp("s"), [None, 2**50], "answer"),
            "a.parquet row 2: column 'answer' cannot be read: ",
        ),
        (
            parquet_column(pyarrow.struct([("v", pyarrow.string())]), [None, {"v": "7"}], "answer"),
            "task.columns.answer=answer: is a struct",
        ),
    ],
    ids=["binary", "map", "a year beyond all calendars", "struct"],
)
def test_parquet_values_that_are_no_text(tmp_path, table, message):
    parquet.write_table(table, tmp_path / "a.parquet")
    [(id, error)] = faults(tmp_path / "a.parquet").items()
    assert id in ("b", "a.parquet row 2") and error.startswith(message) and "a.parquet row 2" in error


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pyarrow.decimal128(6, 2), decimal.Decimal("12.50"), "12.50"),
        (pyarrow.date32(), datetime.date(2024, 5, 1), "2024-05-01"),
        (pyarrow.timestamp("us"), datetime.datetime(2024, 5, 1, 7), "2024-05-01 07:00:00"),
        (pyarrow.large_string(), "7", "7"),
        (pyarrow.int64(), 7, "7"),
        (pyarrow.list_(pyarrow.int64()), [1, 2], "1, 2"),
    ],
)
def test_parquet_values_that_are_text(tmp_path, kind, value, expected):
    parquet.write_table(parquet_column(kind, [None, value], "answer"), tmp_path / "a.parquet")
    assert [problem.answer for problem in load(tmp_path / "a.parquet")] == [None, expected]


def test_bytes_everywhere_are_refused(tmp_path):
    parquet.write_table(parquet_column(pyarrow.binary(), [b"x", b"y"]), tmp_path / "a.parquet")
    message = "task.columns.question=question: must be text, is bytes in a.parquet row 1"
    assert refused(tmp_path / "a.parquet") == message


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_rows(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    assert refused(tmp_path / "a.jsonl") == "task.data=a.jsonl: has no rows"
    write_jsonl(tmp_path / "b.jsonl", ROWS)
    assert len(load(tmp_path / "*.jsonl")) == len(ROWS)


def test_files_put_together_keep_their_byte_order_marks(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(2 * (b"\xef\xbb\xbf" + GOOD.replace(b'"id": "good", ', b"") + b"\n"))
    assert len(load(tmp_path / "a.jsonl")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"question,question\na,1\n", "a.csv:1: two columns have the same name: question, question"),
        (b"question,answer\n", "task.data=a.csv: has no rows"),
        (b"", "task.data=a.csv: has no rows"),
        (b'question,answer\n"a,1\n', "task.data=a.csv: cannot be read: unexpected end of data"),
    ],
)
def test_malformed_csv(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    assert refused(tmp_path / "a.csv").startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"b", "1 fields, but the header has 2"),
        (b"\xff,1", "not UTF-8"),
        (b'"b"c,1', "malformed (',' expected after '\"')"),
    ],
)
def test_a_malformed_line_of_csv_is_the_fault_of_its_row(tmp_path, line, message):
    (tmp_path / "a.csv").write_bytes(b"question,answer\na,1\n" + line + b"\nc,3\n")
    assert faults(tmp_path / "a.csv") == {"1": f"a.csv:3: {message}"}
    assert [problem.answer for problem in load(tmp_path / "a.csv")] == ["1", None, "3"]
