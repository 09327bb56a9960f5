"""``seer-ray gates shares`` as it is typed, and its files as a run takes them."""

from __future__ import annotations

import json
import random
import re
import string
from pathlib import Path

import pytest
from tiny import make_tiny, save_tiny
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.config.compose import compose, from_yaml
from seer_ray.config.options import RunConfig
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates

QUICK = ("model.name=model", "data=[{path: prose.jsonl, join: true}]", "tracking.enabled=false")
SIZES = ("length=320", "budget=96", "documents=2", "held_out=0.2")


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


def test_ways_to_spend_a_budget(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They read as much, the later ones cost less, and their files are options of a run."""
    result = shares(place, monkeypatch, "gates", *SIZES, "name=one", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["documents"], report["block_size"], report["gates"]) == (2, 16, "gates")
    alike, shared, threshold, mass = report["plans"]
    assert alike["selector"] == {"budget": 96}
    assert shared["selector"]["budget"] == 96
    assert threshold["selector"]["budget"] == mass["selector"]["budget"] == 4 * 96
    assert 0 < shared["kl"] <= alike["kl"] and threshold["kl"] > 0
    assert shared["read"] <= alike["read"] >= threshold["read"] > 48
    for plan in report["plans"]:
        rows = [row[plan["name"]] for row in report["layers"]]
        assert sum(row["read"] for row in rows) / 2 == pytest.approx(plan["read"])
        assert sum(row["loss"] for row in rows) == pytest.approx(plan["kl"])
    for row in report["layers"]:
        assert row["kl"] == pytest.approx(row["alike"]["loss"])

    folder = place / "runs" / "one"
    assert json.loads((folder / "metrics.json").read_text())["kl/alike"] == alike["kl"]
    for plan in (shared, threshold, mass):
        text = (folder / f"{plan['name']}.yaml").read_text()
        run = compose(["model.gates=gates"], base=from_yaml(text, job=RunConfig, defaults=True))
        assert (run.selector.name, run.selector.budget) == ("seer", plan["selector"]["budget"])
        assert run.selector.threshold == plan["selector"].get("threshold")
        assert run.selector.mass == plan["selector"].get("mass")
        assert run.selector.shares == plan["selector"]["shares"]
    ranking = from_yaml((folder / "ranking.yaml").read_text(), job=RunConfig, defaults=True)
    alone = {row["layer"]: row["kl"] for row in report["layers"]}
    assert ranking.plan.ranking == sorted(alone, key=lambda layer: -alone[layer])
    run = compose(["model.gates=gates", "plan.anchors=1"], base=ranking)
    assert (run.plan.anchors, run.plan.ranking) == (1, ranking.plan.ranking)


def test_heads_of_a_layer_have_shares_of_their_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their files are options of a run, and an evaluation reads what was expected."""
    result = shares(place, monkeypatch, "gates", *SIZES, "heads=true", "name=heads", "--json")
    assert result.exit_code == 0, result.output
    plans = {plan["name"]: plan for plan in json.loads(result.stdout)["plans"]}
    kinds = ("shares", "threshold", "mass")
    assert list(plans) == ["alike", *kinds, *(f"{kind}_heads" for kind in kinds)]
    files = []
    for kind in kinds:
        own = plans[f"{kind}_heads"]
        assert own["kl"] > 0 and own["read"] <= plans["alike"]["read"]
        files.append(str(place / "runs/heads" / f"{kind}_heads.yaml"))
        said = from_yaml(Path(files[-1]).read_text(), job=RunConfig, defaults=True)
        run = compose(["model.gates=gates"], base=said)
        assert run.selector.shares == {} and run.selector.head_shares == own["selector"]["head_shares"]
        assert all(len(heads) == 2 for heads in run.selector.head_shares.values())
    monkeypatch.chdir(place)
    words = (f"settings=[{','.join(files)}]", "budgets=[]", "selectors=[oracle]", "outputs=false", "--json")
    sizes = ("held_out=0.8", "documents=2", "length=320", "name=seen")
    seen = CliRunner().invoke(app, ["gates", "eval", "gates", *QUICK, *sizes, *words])
    assert seen.exit_code == 0, seen.output
    table = json.loads(seen.stdout)["table"]
    assert {row["budget"] for row in table} == {f"{kind}_heads" for kind in kinds}
    for row in table:
        if row["selector"] == "seer" and row["positions"] == "all":
            assert row["read"] == pytest.approx(plans[row["budget"]]["read"], rel=0.3)


def test_what_is_printed_is_what_a_run_is_given(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = shares(place, monkeypatch, "gates", *SIZES, "name=printed")
    assert result.exit_code == 0, result.output
    report = json.loads((place / "runs" / "printed" / "figures.json").read_text())
    for plan in report["plans"]:
        (line,) = re.findall(rf"^{plan['name']} +(selector\..*)$", result.stdout, re.MULTILINE)
        words = [word.strip("'") for word in re.findall(r"selector\.\w+=(?:'[^']*'|\S+)", line)]
        found = compose([word.replace("='", "=") for word in words]).selector
        for name, value in plan["selector"].items():
            assert getattr(found, name) == pytest.approx(value)
    for text in ("KL alone", "mean", "results", "threshold.yaml"):
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
        more = ("budgets=[96]", "selectors=[oracle]") if held_out else ("budget=96",)
        result = CliRunner().invoke(app, [*job.split(), "gates", *QUICK, *sizes, *more])
        assert result.exit_code == 0, result.output
    assert seen[True] and seen[False] and not seen[True] & seen[False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "model.gates: not set; name the gates"),
        (("gates", "gates"), "gates gates: gates shares takes one set of gates"),
        (("gates", "budget=16"), "budget=16: must be at least two blocks, 32 tokens"),
        (
            ("gates", "budget=320", "length=320"),
            "budget=320: a document of prose.jsonl has 320 .* 160 on",
        ),
        (("gates", "length=4096"), "length=4096: the model's context is 1024 tokens"),
        (("gates", "cap=0.5"), "cap=0.5: must be at least 1"),
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
