"""Rows by columns of the dataset that were kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import make_run, one_error
from results.sample import row
from typer.testing import CliRunner

from seer_ray.analysis.groups import COLUMNS, groups_of, matching, values_of
from seer_ray.cli.app import app
from seer_ray.config.errors import ConfigError
from seer_ray.results import schema
from seer_ray.results.folder import RunFolder


def kept(problem: str, subject: str | None, correct: bool, level: int = 1) -> dict[str, object]:
    return row(problem, correct=correct, inputs=json.dumps({"subject": subject, "level": level}))


ROWS = [
    kept("a", "Algebra", True),
    kept("b", "Algebra", False, 2),
    kept("c", "Geometry", True),
    kept("d", "Geometry", True),
    kept("e", None, False),
]
TABLE = schema.table(ROWS)


def test_accuracy_by_column() -> None:
    found = groups_of(TABLE.select(COLUMNS).to_batches(2))
    said = [(one["column"], one["value"], one["rows"], one["accuracy"]) for one in found]
    assert said == [
        ("subject", "Algebra", 2, 0.5),
        ("subject", "Geometry", 2, 1.0),
        ("subject", "none", 1, 0.0),
        ("level", "1", 4, 0.75),
        ("level", "2", 1, 0.0),
    ]
    assert found[1]["low"] < 0.5 < found[1]["high"] == 1.0 and found[2]["low"] is None


def test_a_column_that_only_some_rows_have() -> None:
    """Whichever batch it first comes in, rows without it count; one of an own value a row is no group."""
    rows = [
        row(f"p{i}", correct=i < 10, inputs=json.dumps({"id": i} | ({"late": 1} if i > 28 else {})))
        for i in range(30)
    ]
    found = groups_of(schema.table([row("none", inputs=None), *rows]).to_batches(4))
    assert [(one["column"], one["value"], one["rows"], one["accuracy"]) for one in found] == [
        ("late", "1", 1, 0.0),
        ("late", "none", 30, 11 / 30),
    ]


def test_rows_with_a_value() -> None:
    assert matching(TABLE, {"subject": "Algebra", "level": "2"})["problem_id"].to_pylist() == ["b"]
    with pytest.raises(
        ConfigError, match=r"^subject=Algbra: no row has it; there are Algebra, Geometry, none"
    ):
        matching(TABLE, {"subject": "Algbra"})
    with pytest.raises(ConfigError, match=r"^topic: not kept of the dataset's rows; there are subject"):
        values_of(TABLE, "topic")
    with pytest.raises(ConfigError, match=r"keep it by task\.columns\.keep"):
        values_of(schema.table([row("a")]), "topic")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense run and a quest run of six problems; quest loses one of Geometry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("dense", "quest"):
        make_run(f"selector={name}", f"name={name}", "task.columns.keep=[subject]")
        with RunFolder.open(f"runs/{name}", _config(name)) as folder:
            folder.commit(
                kept(f"p{i}", "Algebra" if i < 3 else "Geometry", name == "dense" or i < 5) for i in range(6)
            )


def _config(name: str):  # type: ignore[no-untyped-def]
    from seer_ray.config.compose import compose

    return compose([f"selector={name}", f"name={name}", "task.columns.keep=[subject]"])


def test_compare_by_a_column_and_where_it_has_a_value(two: None) -> None:
    def run(*words: str):  # type: ignore[no-untyped-def]
        return CliRunner().invoke(app, ["compare", "dense", "quest", *words], catch_exceptions=False)

    shown = run("--by", "subject").stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    said = json.loads(run("--by", "subject", "--json").stdout)
    changes = {g["value"]: g["differences"]["quest 208"]["value"] for g in said["groups"]}
    assert said["baseline"] == "dense" and changes == {"Algebra": 0.0, "Geometry": pytest.approx(-1 / 3)}
    only = json.loads(run("--where", "subject=Geometry", "--json").stdout)
    assert only["assessments"][0]["difference"]["pairs"] == 3
    assert one_error(run("--where", "subject")).startswith("--where subject: must be COLUMN=VALUE")


def test_show_reads_rows_and_chains(two: None) -> None:
    def run(*words: str):  # type: ignore[no-untyped-def]
        return CliRunner().invoke(app, ["show", *words], catch_exceptions=False)

    shown = run("quest").stdout
    assert all(len(line) <= 80 for line in shown.splitlines()) and "6 rows" in shown
    wrong = json.loads(run("quest", "--wrong", "--json").stdout)["rows"]
    assert [one["problem_id"] for one in wrong] == ["p5"]
    chain = run("quest", "p5").stdout
    for part in ("What is p5?", "It is p5.", "wrong · found p5 · reference p5"):
        assert part in chain
    assert one_error(run("quest", "p9")).startswith("p9: no row of runs/quest is of this problem")
