"""From files to problems, and one line for everything that can be wrong with them."""

import builtins
import datetime
import decimal
import gzip
import json
import re
import sys
import types
import uuid

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig, GeneratorConfig, TaskConfig
from seer_ray.tasks.datasets import answer_text, load_problems

ROWS = [{"id": f"p{i}", "question": f"{i}+1?", "answer": str(i + 1)} for i in range(6)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def write_csv(path, rows):
    path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    return str(path)


def write_parquet(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def write_gzip(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return str(path)


def load(data, columns=None, **task):
    return load_problems(TaskConfig(data=str(data), columns=columns or ColumnsConfig(), **task))


def ids(problems):
    return [problem.id for problem in problems]


def refused(data, columns=None, **task):
    """The message, without the folder that pytest made."""
    with pytest.raises(ConfigError) as error:
        load(data, columns, **task)
    assert "\n" not in str(error.value)
    return re.sub(r"[^ =]*/test_[^/]*/", "", str(error.value))


def faults(data, columns=None, **task):
    """What is wrong with single rows, without the folder that pytest made: id -> message."""
    problems = load(data, columns, **task)
    for problem in problems:
        assert problem.error is None or (problem.messages, problem.answer) == ((), None)
    found = {problem.id: problem.error for problem in problems if problem.error is not None}
    assert all("\n" not in error for error in found.values())
    short = {re.sub(r".*/test_[^/]*/", "", id): error for id, error in found.items()}
    return {id: re.sub(r"[^ =]*/test_[^/]*/", "", error) for id, error in short.items()}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_jsonl),
        ("a.csv", write_csv),
        ("a.parquet", write_parquet),
        ("a.jsonl.gz", write_gzip),
    ],
)
def test_every_file_type_gives_the_same_problems(tmp_path, name, write):
    problems = load(write(tmp_path / name, ROWS))
    assert [(p.id, p.messages, p.answer) for p in problems] == [
        (row["id"], ({"role": "user", "content": row["question"]},), row["answer"]) for row in ROWS
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{folder}/*.jsonl", ["p0", "p1"]),
        ("{folder}/[b]*.jsonl", ["p1"]),
        ("{folder}/*/*.jsonl", ["p2"]),
        ("{folder}/**/*.jsonl", ["p0", "p1", "p3", "p2"]),
        ("{folder}/sub/**/?.jsonl", ["p3", "p2"]),
        ("file://{folder}/*.jsonl", ["p0", "p1"]),
        ("file://{folder}/s*b/**/*.jsonl", ["p3", "p2"]),
        ("file://{folder}/sub/c.jsonl", ["p2"]),
    ],
)
def test_globs_read_in_the_order_of_names(tmp_path, pattern, expected):
    (tmp_path / "sub" / "below").mkdir(parents=True)
    for name, row in zip(("b", "a", "sub/c", "sub/below/d", ".hidden"), (1, 0, 2, 3, 4), strict=True):
        write_jsonl(tmp_path / f"{name}.jsonl", [ROWS[row]])
    assert ids(load(pattern.format(folder=tmp_path))) == expected


def test_a_glob_over_an_object_store():
    memory, bucket = fsspec.filesystem("memory"), uuid.uuid4().hex
    for name, row in zip(("b", "a", "sub/c"), (1, 0, 2), strict=True):
        memory.pipe(f"/{bucket}/{name}.jsonl", json.dumps(ROWS[row]).encode())
    assert ids(load(f"fsspec+memory://{bucket}/*.jsonl")) == ["p0", "p1"]
    assert ids(load(f"fsspec+memory://{bucket}/**/*.jsonl")) == ["p0", "p1", "p2"]
    assert "no file matches" in refused(f"fsspec+memory://{bucket}/*.csv")


def test_a_relative_glob(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert len(load("*.jsonl")) == len(load("a.jsonl")) == len(load("./a.js*l")) == 6


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    assert len(load(write_jsonl(tmp_path / "a[1].jsonl", ROWS))) == 6


def test_columns_are_mapped(tmp_path):
    rows = [{"key": 7, "problem": "1+1?", "solution": 2.0, "level": "easy"}]
    columns = ColumnsConfig(id="key", question="problem", answer="solution")
    [problem] = load(write_jsonl(tmp_path / "a.jsonl", rows), columns, prompt="{question} ({level})")
    assert (problem.id, problem.messages[0]["content"], problem.answer) == ("7", "1+1? (easy)", "2")


def test_the_row_number_is_the_id_where_there_is_no_other(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"question": "a", "answer": 1}, {"question": "b", "answer": 1}])
    write_jsonl(tmp_path / "b.jsonl", [{"question": "c", "answer": 1}])
    assert ids(load(tmp_path / "*.jsonl")) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (18, "18"),
        (18.0, "18"),
        (0.5, "0.5"),
        (" 7 ", "7"),
        (True, "True"),
        (["3", 4.0], "3, 4"),
        (None, None),
        (float("nan"), None),
        ("", None),
        ([], None),
    ],
)
def test_answers_become_text(value, expected):
    assert answer_text(value) == expected


def test_no_answers_to_grade_against(tmp_path):
    data = write_jsonl(tmp_path / "a.jsonl", [{"question": "1+1?"}])
    assert load(data, ColumnsConfig(answer=None))[0].answer is None
    assert load(data, grader="none")[0].answer is None


def test_limit_and_shuffle(tmp_path):
    data = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert ids(load(data, limit=2)) == ["p0", "p1"]
    assert len(load(data, limit=100)) == 6
    shuffled = ids(load(data, shuffle=1))
    assert sorted(shuffled) == ids(load(data)) != shuffled
    assert ids(load(data, shuffle=1, limit=3)) == shuffled[:3]
    assert ids(load(data, shuffle=2)) != shuffled
    # By id, not by place: the same rows in another order are the same sample.
    assert ids(load(write_jsonl(tmp_path / "b.jsonl", ROWS[::-1]), shuffle=1)) == shuffled


def test_rows_beyond_the_limit_are_not_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "1+1?", "answer": 2}\nbroken\n')
    assert len(load(path, limit=1)) == 1
    assert "a.jsonl:2" in faults(path, shuffle=0)["1"]


def test_blank_lines_carriage_returns_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"question": "a\\u2028b", "answer": 1}\r\n\r\n{"question": "c", "answer": 2}'
    )
    assert [problem.messages[0]["content"] for problem in load(path)] == ["a\u2028b", "c"]
    csv = tmp_path / "a.csv"
    csv.write_bytes(b'\xef\xbb\xbfquestion,answer\r\n"a, ""b""\nc",007\r\n')
    [problem] = load(csv)
    assert (problem.messages[0]["content"], problem.answer) == ('a, "b"\nc', "007")


def test_a_csv_field_may_be_long(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"question,answer\n{'x' * 200_000},1\n")
    assert len(load(path)[0].messages[0]["content"]) == 200_000


def batch_line(number, **body):
    body = {"model": "m", "messages": [{"role": "user", "content": f"{number}?"}], **body}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_openai_batch(tmp_path):
    rows = [batch_line(0), batch_line(1, metadata={"answer": "2"}), {**batch_line(2), "answer": 3}]
    problems = load(write_jsonl(tmp_path / "batch.jsonl", rows))
    assert ids(problems) == ["r0", "r1", "r2"]
    assert [problem.answer for problem in problems] == [None, "2", "3"]
    assert problems[1].messages == ({"role": "user", "content": "1?"},)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {**batch_line(1), "url": "/v1/embeddings"},
            "b.jsonl:2: url=/v1/embeddings: must be /v1/chat/completions",
        ),
        ({"custom_id": "x", "body": {"input": "a"}}, "b.jsonl:2: not a line of an OpenAI batch"),
        (ROWS[0], "b.jsonl:2: not a line of an OpenAI batch"),
    ],
)
def test_bad_openai_batch(tmp_path, line, message):
    assert message in faults(write_jsonl(tmp_path / "b.jsonl", [batch_line(0), line]))["b.jsonl:2"]


def test_openai_batch_with_an_id_twice(tmp_path):
    message = refused(write_jsonl(tmp_path / "b.jsonl", [batch_line(0), batch_line(0)]))
    assert "1 ids are not unique: 'r0' in b.jsonl:1 and b.jsonl:2" in message


def test_a_prompt_template_for_whole_chats_is_refused(tmp_path):
    data = write_jsonl(tmp_path / "b.jsonl", [batch_line(0)])
    assert "the rows of b.jsonl are whole chats; leave it out" in refused(data, prompt="Q: {question}")


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


def test_torn_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 torn")
    assert refused(tmp_path / "a.parquet").startswith("task.data=a.parquet: cannot be read: ")


def test_missing_files(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "gsm8k_test.jsonl", ROWS)
    missing = tmp_path / "gsm8k_tset.jsonl"
    assert refused(missing) == "task.data=gsm8k_tset.jsonl: no such file (did you mean 'gsm8k_test.jsonl'?)"
    assert refused(tmp_path / "nowhere" / "a.jsonl").endswith("a.jsonl: no such file")
    assert refused(tmp_path / "*.csv") == "task.data=*.csv: no file matches"
    assert refused(tmp_path / "no" / "*.csv").endswith("*.csv: no file matches")
    (tmp_path / "sub").mkdir()
    assert refused(tmp_path / "sub").startswith("task.data=sub: is a folder; name its files, for example ")
    (tmp_path / "a.json").write_text("[]")
    assert refused(tmp_path / "a.json") == (
        "task.data=a.json: unknown file type; must be .jsonl, .parquet or .csv"
    )
    assert refused("nothing://bucket/a.jsonl").startswith(
        "task.data=nothing://bucket/a.jsonl: cannot be reached: "
    )
    monkeypatch.chdir(tmp_path)
    assert refused("gsm8k_tst.jsonl") == (
        "task.data=gsm8k_tst.jsonl: no such file (did you mean 'gsm8k_test.jsonl'?)"
    )


def test_missing_columns_name_those_there_are(tmp_path):
    data = write_jsonl(tmp_path / "a.jsonl", [{"qestion": "1+1?", "solution": 2}])
    assert refused(data) == (
        "task.columns.question=question: no column 'question' in a.jsonl:1 (did you mean 'qestion'?); "
        "columns: qestion, solution"
    )
    question = ColumnsConfig(question="qestion")
    assert refused(data, question) == (
        "task.columns.answer=answer: no column 'answer' in a.jsonl:1; columns: qestion, solution"
    )
    assert refused(data, ColumnsConfig(id="key")).startswith(
        "task.columns.id=key: no column 'key' in a.jsonl:1"
    )
    assert "task.columns.messages=chat: no column 'chat'" in refused(
        data, ColumnsConfig(messages="chat", answer=None)
    )


def test_a_column_that_only_a_later_row_lacks(tmp_path):
    data = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], {"id": "p1", "question": "2?"}])
    assert "no column 'answer' in a.jsonl:2" in faults(data)["p1"]


def test_ids_must_be_there_and_differ(tmp_path):
    rows = [{"id": id, "question": "1?", "answer": 1} for id in ("a", 1, "b", "1", "a", "a")]
    data = write_jsonl(tmp_path / "a.jsonl", rows)
    assert refused(data) == (
        "task.data=a.jsonl: 2 ids are not unique: 'a' in a.jsonl:1 and a.jsonl:5; "
        "'1' in a.jsonl:2 and a.jsonl:4; name another column by task.columns.id"
    )


def test_ids_are_only_text(tmp_path):
    rows = [{"id": "../../etc/passwd", "question": "1?", "answer": 1}]
    assert ids(load(write_jsonl(tmp_path / "a.jsonl", rows))) == ["../../etc/passwd"]


def test_choice_needs_letters_for_answers(tmp_path):
    data = write_jsonl(
        tmp_path / "a.jsonl", [{"question": "?", "answer": "(c)"}, {"question": "?", "answer": 2}]
    )
    assert faults(data, grader="choice") == {
        "1": "task.grader=choice: the answer in a.jsonl:2 is '2', not a letter from A to J"
    }
    assert len(load(data, grader="choice", limit=1)) == 1


def test_a_prompt_without_a_column_is_refused(tmp_path):
    data = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert refused(data, prompt=r"Solve it, \boxed{}.") == (
        r"task.prompt='Solve it, \\boxed{}.': must name a column in braces, such as {question}"
    )


def test_built_in_problems():
    task = TaskConfig(generator=GeneratorConfig("lookup", 6))
    problems = load_problems(task)
    assert len(problems) == len(set(ids(problems))) == 8
    assert load_problems(task) == problems
    task.limit, task.system = 3, "Be brief."
    assert ids(load_problems(task)) == ids(problems)[:3]
    assert load_problems(task)[0].messages[0] == {"role": "system", "content": "Be brief."}
    task.shuffle = 5
    assert not set(ids(load_problems(task))) & set(ids(problems))


def without_datasets(monkeypatch):
    real = builtins.__import__

    def fake(name, *rest):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", fake)


def test_hub_ids_need_the_extra(monkeypatch):
    without_datasets(monkeypatch)
    assert refused("openai/gsm8k") == (
        'task.data=openai/gsm8k: no such file, and datasets of the hub need: pip install "seer-ray[hub]"'
    )


def test_hub_datasets(monkeypatch):
    asked = []

    def load_dataset(name, subset, split):
        asked.append((name, subset, split))
        if subset != "main":
            raise ValueError("Config name is missing.\nPlease pick one among: ['main']")
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert len(load("openai/gsm8k", subset="main", split="train")) == 6
    assert asked == [("openai/gsm8k", "main", "train")]
    assert refused("openai/gsm8k") == (
        "task.data=openai/gsm8k task.split=test: cannot be loaded from the hub: "
        "Config name is missing. Please pick one among: ['main']"
    )
    assert "openai/gsm8k row 1" in refused("openai/gsm8k", ColumnsConfig(id="key"), subset="main")
