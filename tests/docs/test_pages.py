"""What the docs refer to is there, and what they say of the code is so."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from checkout import ROOT
from pages import PAGES, README, name, prose, spans
from test_imports import LEVELS

from seer_ray.config.training import SourceConfig
from seer_ray.status.pulse import JobStatus

DOCS = ROOT / "docs"
TABLES = runpy.run_path(str(DOCS / "tables.py"))


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", [page for page in PAGES if "assets" not in page.parts], ids=name)
def test_files_that_are_named(page: Path) -> None:
    """Those of the repository; what an example makes is called new."""
    rooms = r"(?:seer_ray|kernels|jobs|conf|tests|docs)/[\w./-]*"
    for path in re.findall(rf"`({rooms})`(?!, new)", prose(page)):
        if not re.search(r"[A-Z]{4}", path):  # a placeholder
            assert (ROOT / path).exists(), f"{path}: no such file"


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_every_page_is_linked_from_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    assert all(f"({name(page)})" in text for page in PAGES if "assets" not in page.parts and page != README)


def test_every_picture_is_shown() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = {path.name for kind in ("png", "svg") for path in DOCS.glob(f"*.{kind}")}
    assert {picture for picture in pictures if picture not in shown} == set()


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=name)
def test_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == TABLES["filled"](text), f"run: python {name(DOCS / 'tables.py')}"


def test_every_table_stands_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    assert set(re.findall(r"<!-- table (\w+) -->", text)) == TABLES["TABLES"].keys()


def test_figures_of_the_readme_stand_in_the_benchmarks() -> None:
    rows = re.findall(r"^\|.*\| [AB] \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    figures = re.findall(r"\d[\d.,]*\d|\d", " ".join(rows))
    known = re.findall(r"\d[\d.,]*\d|\d", (DOCS / "benchmarks.md").read_text(encoding="utf-8"))
    assert len(rows) >= 5 and set(figures) <= set(known)


def numbers(table: str) -> list[list[float]]:
    """Of the rows of a table that begins so, units aside."""
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    rows = text[text.index(table) :].partition("\n\n")[0].splitlines()[2:]
    return [[float(number.replace(",", "")) for number in re.findall(r"[\d,]+\.?\d*", row)] for row in rows]


def test_tables_of_speed_are_those_of_the_recorded_run() -> None:
    measured = json.loads((DOCS / "bench-cpu.json").read_text(encoding="utf-8"))
    steps = {(step["batch"], step["context"]): step["ms_per_step"] for step in measured["engine"]["decode"]}
    for batch, context, *said in numbers("| batch x context |"):
        ms = [
            steps[batch, context][name]
            for name in ("dense", "seer", "seer, int8", "quest", "window", "generate")
        ]
        assert said == pytest.approx([*ms, ms[0] / ms[1], ms[5] / ms[1]], rel=0.05)
    rows = {
        (row["batch"], row["budget"]): row
        for row in measured["kernels"]["rows"]
        if (row["model"], row["context"]) == ("qwen3-8b", 32768)
    }
    for batch, budget, *said in numbers("| rows | budget |"):
        row = rows[batch, budget]
        ms = [row[name] / 1000 for name in ("gate_us", "total_us", "dense_us", "torch_us")]
        assert said == pytest.approx([*ms, row["speedup_ours"], row["speedup_torch"]], rel=0.02)


def test_keys_of_documents() -> None:
    text = (DOCS / "options.md").read_text(encoding="utf-8").partition("## Documents")[2]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)))) == {
        field.name for field in dataclasses.fields(SourceConfig)
    }


def test_what_status_prints_for_scripts() -> None:
    fields = {field.name for field in dataclasses.fields(JobStatus)} | {"message"}
    assert fields <= set(spans(DOCS / "results.md"))


def test_the_import_rule() -> None:
    text = (DOCS / "layout.md").read_text(encoding="utf-8")
    rule = next(line for line in text.splitlines() if line.startswith("cli -> "))
    assert tuple(tuple(level.split(", ")) for level in rule.split(" -> ")) == LEVELS
    rooms = {path.parent.name for path in (ROOT / "seer_ray").glob("*/__init__.py")}
    assert rooms - {"conf"} == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def test_the_license_is_the_one_that_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert declared == "Apache-2.0"
    assert re.match(r"\s+Apache License\s+Version 2\.0", text) and "APPENDIX: How to apply" in text
