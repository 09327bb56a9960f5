"""From files to problems, and one line for everything that can be wrong with them."""

import builtins
import gzip
import json
import sys
import types
import uuid

import fsspec
import pyarrow
import pytest
from pyarrow import parquet
from tasks.made import ROWS, faults, ids, load, refused, write_jsonl

from seer_ray.config.options import ColumnsConfig, GeneratorConfig, TaskConfig
from seer_ray.tasks.datasets import answer_text, load_problems


def write_csv(path, rows):
    path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    return str(path)


def write_parquet(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def write_gzip(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return str(path)


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
            {"r1": "b.jsonl:2: url=/v1/embeddings: must be /v1/chat/completions or /v1/completions"},
        ),
        (
            {"custom_id": "x", "body": {"input": "a"}},
            {"x": "b.jsonl:2: not a line of an OpenAI batch: must have custom_id and body.messages"},
        ),
        (ROWS[0], {"b.jsonl:2": "b.jsonl:2: not a line of an OpenAI batch: must have custom_id and body"}),
    ],
)
def test_bad_openai_batch(tmp_path, line, message):
    assert faults(write_jsonl(tmp_path / "b.jsonl", [batch_line(0), line])) == message


def test_openai_batch_with_an_id_twice(tmp_path):
    message = refused(write_jsonl(tmp_path / "b.jsonl", [batch_line(0), batch_line(0)]))
    assert "1 ids are not unique: 'r0' in b.jsonl:1 and b.jsonl:2" in message


def test_a_prompt_template_for_whole_chats_is_refused(tmp_path):
    data = write_jsonl(tmp_path / "b.jsonl", [batch_line(0)])
    assert "the rows of b.jsonl are whole chats; leave it out" in refused(data, prompt="Q: {question}")


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
