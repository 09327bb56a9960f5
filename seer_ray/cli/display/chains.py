"""Rows of a run as a person reads them in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import count

GRADES = {True: Text("right", "green"), False: Text("wrong", "red"), None: Text("no grade", "yellow")}
LONGEST = 40
"""Characters of an answer in the table."""


def print_rows(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a row."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("problem", overflow="fold")
    table.add_column("sample", justify="right")
    table.add_column("")
    table.add_column("tokens", justify="right", no_wrap=True)
    for name in ("answer", "reference"):
        table.add_column(name, overflow="fold")
    for row in rows:
        said = row["error"] or row["grade_error"] or row["extracted_answer"] or "none"
        cut = " (cut off)" if row["finish_reason"] == "length" else ""
        table.add_row(
            Text(row["problem_id"]),
            str(row["sample"]),
            _grade(row),
            f"{row['completion_tokens']:,}",
            Text(f"{_short(said)}{cut}"),
            Text(_short(row["reference"] or "")),
        )
    console.print(table)
    console.print(Text(count(len(rows), "row"), "dim"))


def print_chains(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Each row in full: what was asked (once), the reasoning, the answer, its grade."""
    asked = None
    for row in rows:
        if row["prompt"] != asked:
            asked = row["prompt"]
            _part(console, f"{row['problem_id']} · prompt, {count(row['prompt_tokens'], 'token')}", asked)
        length = (
            f"sample {row['sample']} · {count(row['completion_tokens'], 'token')}, {row['finish_reason']}"
        )
        if row["error"]:
            _part(console, f"{length} · error", row["error"])
            continue
        if row["reasoning"]:
            _part(console, f"{length} · reasoning", row["reasoning"])
            _part(console, f"sample {row['sample']} · answer", row["answer"] or "(the reasoning did not end)")
        else:
            _part(console, length, row["completion"])
        answers = {"found": row["extracted_answer"], "reference": row["reference"]}
        said = [f"{name} {_short(text or 'none')}" for name, text in answers.items()]
        if row["grade_error"]:
            said.append(row["grade_error"])
        found = Text.assemble(_grade(row), f" · {' · '.join(said)}")
        console.print(found, "")


def _part(console: Console, title: str, text: str) -> None:
    console.print(Rule(Text(title, "bold"), align="left", style="dim"))
    console.print(Text(text), soft_wrap=False)


def _grade(row: Mapping[str, Any]) -> Text:
    return Text("error", "red") if row["error"] else GRADES[row["correct"]]


def _short(text: str) -> str:
    return textwrap.shorten(text, LONGEST, placeholder=" …") or text[:LONGEST]
