"""``seer-ray gates shares`` as it is typed, and its files as a run takes them."""

from __future__ import annotations

import itertools
import json
import random
import re
import string
from pathlib import Path

import pytest
from tiny import make_tiny, save_tiny
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.config.compose import from_yaml
from seer_ray.config.options import RunConfig, SelectorConfig
from seer_ray.models.allocation import allocation_of, read_allocation
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates
from seer_ray.models.plan import resolve_plan

QUICK = ("model.name=model", "data=[{path: prose.jsonl, join: true}]", "tracking.enabled=false")
SIZES = ("length=320", "budgets=[96,160]", "documents=2", "held_out=0.2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its gates for blocks of 16, and texts."""
    folder = tmp_path_factory.mktemp("shares")
    save_tiny(folder / "model", "qwen3")
    config = make_tiny("qwen3").config
    gates = init_gates(config, GateConfig(block_size=16, gate_dim=8), seed=1)
    save_gates(folder / "gates", gates, config, "tiny")
    draw = random.Random(0)
    lines = (
        json.dumps({"id": str(n), "text": "".join(draw.choices(string.ascii_lowercase, k=150))})
        for n in range(20)
    )
    (folder / "prose.jsonl").write_text("\n".join(lines))
    return folder


def shares(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "150")
    return CliRunner().invoke(app, ["gates", "shares", *QUICK, *words])


def test_what_is_found_is_what_runs_and_evaluations_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("selectors=[seer,quest,window]", "name=one", "--json")
    result = shares(place, monkeypatch, "gates", *SIZES, *words)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["documents"], report["block_size"], report["gates"]) == (2, 16, "gates")
    spent = {(one["selector"], one["budget"]): one for one in report["spent"]}
    assert list(spent) == list(itertools.product(("seer", "quest", "window"), (96, 160)))
    for (_, budget), one in spent.items():
        assert budget / 2 < one["read"] <= budget and 0 < one["kl"] <= one["uniform"] * (1 + 1e-9)
        assert sum(one["layers"]) / 2 == pytest.approx(one["read"])
    folder = place / "runs" / "one"
    assert json.loads((folder / "metrics.json").read_text())["kl/seer/96"] == spent["seer", 96]["kl"]
    ranking = from_yaml((folder / "ranking.yaml").read_text(), job=RunConfig, defaults=True)
    alone = {row["layer"]: row["kl"] for row in report["layers"]}
    assert ranking.plan.ranking == sorted(alone, key=lambda layer: -alone[layer])

    found = read_allocation(folder / "allocation.json")
    assert list(found) == ["seer", "quest", "window"] and found["seer"].budgets == (96, 160)
    for name, allocation in found.items():
        asked = SelectorConfig(name=name, budget=128, allocation=str(folder))
        plan = resolve_plan(asked, ["attention"] * 2, 16, allocation=allocation_of(asked, None))
        assert plan.code == f"2L:{name}128b16-allocated"
        heads = [head for spec in plan.layers for head in spec.heads]
        assert sum(head.blocks for head in heads) == 8 * len(heads) and allocation.kv_heads == 2

    monkeypatch.chdir(place)
    how = ("budgets=[96]", "selectors=[oracle,quest]", "allocation=runs/one", "held_out=1", "--json")
    seen = CliRunner().invoke(app, ["gates", "eval", "gates", *QUICK, *SIZES[:1], "name=seen", *how])
    assert seen.exit_code == 0, seen.output
    report = json.loads(seen.stdout)
    rows = {(row["budget"], row["selector"]): row for row in report["table"]}
    assert set(rows) == {
        *(("96", name) for name in ("seer", "oracle", "quest")),
        *(("96 shared", name) for name in ("seer", "quest")),
    }
    for name in ("seer", "quest"):
        assert rows["96 shared", name]["read"] == pytest.approx(rows["96", name]["read"], abs=8)
    apart = {(row["budget"], row["selector"], row["positions"]): row for row in report["rows"]}
    assert len(apart) == 10
    for (budget, name), row in rows.items():
        sharp, flat = (apart[budget, name, kind] for kind in ("sharp", "flat"))
        assert sharp["rows"] * 3 == pytest.approx(flat["rows"], abs=3 * 4)
        both = sharp["rows"] * sharp["kl"] + flat["rows"] * flat["kl"]
        assert both / row["rows"] == pytest.approx(row["kl"])


def test_it_is_printed_with_the_option_that_names_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = shares(place, monkeypatch, "selectors=[quest]", "block_size=16", *SIZES, "name=printed")
    assert result.exit_code == 0, result.output
    for text in ("KL alone", "KL uniform", "selector.allocation=runs/printed"):
        assert text in result.stdout


def test_the_documents_that_are_held_out_are_not_looked_at(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seer_ray.corpora import load as loading

    seen: dict[bool, set[tuple[int, ...]]] = {}
    original = loading.join
    ids = {False: "gates shares", True: "gates eval"}

    def spy(pieces: list[loading.Document], length: int) -> list[loading.Document]:
        seen[held_out] = {tuple(piece.tokens.tolist()) for piece in pieces}
        return original(pieces, length)

    monkeypatch.setattr(loading, "join", spy)
    for held_out, job in ids.items():
        monkeypatch.chdir(place)
        sizes = ("length=320", "held_out=0.2", "documents=1", "name=" + job.split()[1])
        more = ("budgets=[96]", "selectors=[oracle]") if held_out else ("budgets=[96]",)
        result = CliRunner().invoke(app, [*job.split(), "gates", *QUICK, *sizes, *more])
        assert result.exit_code == 0, result.output
    assert seen[True] and seen[False] and not seen[True] & seen[False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("selectors=[seer]",), "selectors: seer needs gates, and model.gates is not set"),
        (("selectors=[best]",), "selectors: 'best' must be one of seer, "),
        (("gates", "gates"), "gates gates: gates shares takes one set of gates"),
        (("gates", "budgets=[320]", "length=320"), "budgets=320: length=320 is no longer"),
        (("gates", "budgets=[]"), r"budgets=\[\]: name at least one"),
        (("gates", "block_size=8"), "block_size=8: the gates have their own"),
        (("gates", "length=4096"), "length=4096: the model's context is 1024 tokens"),
        (("nowhere",), "nowhere: no such file or folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    result = shares(place, monkeypatch, *words)
    assert result.exit_code == 2, result.output
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(message, error), error
