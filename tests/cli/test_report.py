"""``seer-ray report`` and ``seer-ray export``."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.made_runs import make_run

from .conftest import Invoke, one_error


def test_report_of_a_run_lies_in_its_folder(invoke: Invoke) -> None:
    make_run(Path("runs"), "quest", 48, problems=3)
    result = invoke("report", "quest-48")
    assert result.exit_code == 0, result.output
    files = result.stdout.split()
    assert files[0] == "runs/quest-48/report.html" and "runs/quest-48/plots/layers.png" in files
    assert all(Path(file).is_file() for file in files)
    assert "<title>quest-48</title>" in Path(files[0]).read_text()


def test_report_of_several_goes_where_it_is_told(invoke: Invoke) -> None:
    make_run(Path("runs"), "dense", problems=3)
    make_run(Path("runs"), "quest", 48, problems=3)
    assert invoke("report", "dense", "runs/quest-48").exit_code == 0
    assert "<title>dense, quest-48</title>" in Path("report/report.html").read_text()
    told = invoke("report", "dense", "quest-48", "-o", "out", "--title", "A & B", "--margin", "5")
    assert told.exit_code == 0
    page = Path("out/report.html").read_text()
    assert "<title>A &amp; B</title>" in page and "the margin of 5 points" in page


def test_what_cannot_be_reported_is_one_line(invoke: Invoke) -> None:
    make_run(Path("runs"), "dense", problems=3)
    assert "no such run" in one_error(invoke("report", "densed"))
    assert "--margin 0" in one_error(invoke("report", "dense", "--margin", "0"))
    assert "--confidence 20" in one_error(invoke("report", "dense", "--confidence", "20"))


def test_export_says_what_it_wrote(invoke: Invoke) -> None:
    make_run(Path("runs"), "dense", problems=3)
    result = invoke("export", "dense", "--openai-batch", "answers.jsonl")
    assert (result.exit_code, result.stdout) == (0, "answers.jsonl: 3 lines\n")
    lines = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert sum(line["error"] is not None for line in lines) == 1
    assert "--openai-batch" in one_error(invoke("export", "dense", "--openai-batch", "no/where.jsonl"))
