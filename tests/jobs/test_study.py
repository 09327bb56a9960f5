"""``seer-ray study`` as it is typed: its tables, going on after a stop, and mistakes."""

from __future__ import annotations

import json
import random
import re
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from cells_here import Here, typist
from tiny import make_tiny, save_tiny
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.config.compose import compose, from_yaml
from seer_ray.config.options import RunConfig
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates

LAYERS = 4
QUICK = (
    *("model.name=model", "model.gates=gates", "data=[prose.jsonl,verse.jsonl]", "tracking.enabled=false"),
    *("documents=2", "length=96", "stride=4", "probe.budget=16", "probe.window=8", "probe.recall=[]"),
    *("probe.draws=2", "probe.sets=[even,top]", "choice.dense=1", "choice.candidates=2"),
    "probe.relaxations=[uniform,window,gated,skip]",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four layers, its gates for blocks of 8, and two kinds of text."""
    folder = tmp_path_factory.mktemp("study")
    save_tiny(folder / "model", "qwen3", num_hidden_layers=LAYERS)
    config = make_tiny("qwen3", num_hidden_layers=LAYERS).config
    save_gates(folder / "gates", init_gates(config, GateConfig(8, 8), seed=1), config, "tiny")
    draw = random.Random(0)
    for name in ("prose", "verse"):
        lines = (
            json.dumps({"id": str(n), "text": "".join(draw.choices(string.ascii_lowercase, k=120))})
            for n in range(12)
        )
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def type_(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Types a command, in the folder of the model."""
    return typist(place, monkeypatch)


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    names = ("attention", "profile", "sets", "cooperation", "choices")
    return {name: parquet.read_table(folder / f"{name}.parquet").to_pylist() for name in names}


@pytest.fixture(scope="module")
def whole(place: Path) -> tuple[Here, dict[str, list[dict[str, Any]]]]:
    """A probe that nobody disturbed: what did its cells, and its tables."""
    here = Here()
    with pytest.MonkeyPatch.context() as patch:
        assert typist(place, patch)("study", "probe", *QUICK, "name=whole", here=here).exit_code == 0
    return here, tables(place / "runs" / "whole")


def assert_alike(found: Any, wanted: Any) -> None:
    """The same up to rounding: workers have their own number of threads."""
    if isinstance(wanted, (dict, list)):
        assert len(found) == len(wanted)
        for key in wanted if isinstance(wanted, dict) else range(len(wanted)):
            assert_alike(found[key], wanted[key])
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    else:
        assert found == wanted


def test_a_probe(place: Path, type_: Callable[..., Result]) -> None:
    """Its tables hang together, and its choice is options of a run and of a sweep."""
    result = type_("study", "probe", *QUICK, "name=one", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    folder = place / "runs" / "one"
    found = tables(folder)
    assert found["profile"] == said["profile"] and said["regime"] == "zero-shot"
    assert {row["regime"] for row in found["profile"]} == {"zero-shot"}
    assert {row["source"] for row in found["profile"]} == {"text", "prose.jsonl", "verse.jsonl"}
    alone = {(row["relaxation"], row["layer"]): row for row in found["profile"] if row["source"] == "text"}
    assert len(alone) == 4 * LAYERS and all(row["documents"] == 4 for row in alone.values())
    for row in found["cooperation"]:
        (whole,) = [
            one
            for one in found["sets"]
            if (one["relaxation"], one["set"], one["source"]) == (row["relaxation"], row["set"], "text")
        ]
        singles = sum(alone[row["relaxation"], layer]["delta"] for layer in whole["layers"])
        assert row["index"] == pytest.approx(whole["delta"] - singles)
        assert row["index_low"] < row["index"] < row["index_high"] and row["draws"] == 2
    assert [row["layer"] for row in found["attention"]] == list(range(LAYERS))
    named = {row["choice"] for row in found["choices"]}
    assert named == {
        *("greedy", "profile", "spaced, first", "spaced, last", "random 1", "random 2", "all relaxed")
    }
    assert all(len(row["dense"]) == (row["choice"] != "all relaxed") for row in found["choices"])

    cells = list((folder / "cells").glob("*.parquet"))
    assert len(cells) <= said["cells"]  # two names of a set are one cell
    page = (folder / "report.html").read_text()
    for title in ("What holds alone", "What holds in company", "What skipping breaks", "Which layers stay"):
        assert title in page
    plan = from_yaml((folder / "plan.yaml").read_text(), job=RunConfig, defaults=True)
    made = compose(["model.gates=gates"], base=plan)
    assert made.plan.anchors == 1 and made.plan.cheap == "window"
    assert sorted(made.plan.ranking) == list(range(LAYERS))
    assert made.plan.ranking[0] == said["greedy"][0]["layer"]


def test_killed_and_run_again_it_comes_to_the_same(
    place: Path, type_: Callable[..., Result], whole: Any
) -> None:
    first, second, third = Here(stop=7), Here(), Here()
    stopped = type_("study", "probe", *QUICK, "name=twice", here=first)
    assert stopped.exit_code == 130 and "seer-ray resume twice" in stopped.stderr
    status = json.loads(type_("status", "twice", "--json").stdout)
    assert status["state"] == "interrupted" and status["live"]["done"] == 7
    refused = type_("study", "probe", *QUICK, "name=twice", "length=64")
    assert refused.exit_code == 2
    assert re.search("made with other settings: length: 64 here, 96 in the folder", refused.stderr)
    assert type_("resume", "twice", here=second).exit_code == 0
    assert sorted(first.done + second.done) == sorted(whole[0].done)
    assert tables(place / "runs" / "twice") == whole[1]
    again = type_("study", "probe", *QUICK, "name=twice", "--json", here=third)
    assert again.exit_code == 0 and not third.done
    assert json.loads(again.stdout)["profile"] == whole[1]["profile"]


def test_a_torn_cell_is_told(place: Path, type_: Callable[..., Result], whole: Any) -> None:
    words = ("study", "probe", *QUICK, "name=torn")
    assert type_(*words, here=Here(stop=9)).exit_code == 130
    cell = min((place / "runs" / "torn" / "cells").glob("*.parquet"))
    data = cell.read_bytes()
    cell.write_bytes(data[:100] + bytes(8) + data[108:])
    result = type_(*words)
    assert result.exit_code == 2 and re.search(r"cells/.*: torn .*delete it", result.stderr)
    cell.unlink()
    assert type_(*words).exit_code == 0
    assert tables(place / "runs" / "torn") == whole[1]


def test_retrieval_tasks_stand_beside_the_text(place: Path, type_: Callable[..., Result]) -> None:
    """A dry run says what there is to do; an answer's tokens are the only rows of a task."""
    words = ("study", "probe", *QUICK, "name=recall", "length=560", "documents=1", "probe.recall=[needle]")
    more = ("probe.prompts=1", "probe.sets=[]", "choice.dense=0", "held_out=0")
    short = ("probe.relaxations=[self,static,fixed,random]", "probe.layers='1-2'", "probe.fixed=fixed.txt")
    (place / "fixed.txt").write_text("a fixed text " * 60)
    plan = type_(*words, *more, *short, "--dry-run", "--json")
    assert plan.exit_code == 0, plan.output
    assert json.loads(plan.stdout)["cells"] == 1 + 4 * 2
    result = type_(*words, *more, *short, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    recalled = [row for row in said["profile"] if row["recall"]]
    assert {row["source"] for row in recalled} == {"needle"} and said["choices"] == []
    (cell, *_) = (place / "runs" / "recall" / "cells").glob("relaxed-self*")
    rows = parquet.read_table(cell).to_pylist()
    assert [row["rows"] for row in rows if row["recall"]] == [7]  # a number of seven digits


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("probe.relaxations=[selff]",), "'selff' must be one of self, .*; did you mean 'self'|self"),
        (("model.gates=null", "probe.relaxations=[gated]"), "gated: the model has no gates"),
        (("probe.budget=8",), r"gated: probe.budget=8 must be at least two blocks, 16"),
        (("probe.layers='2-9'",), "probe.layers=2-9: must name layers 0 to 3"),
        (("probe.sets=[evne]",), "'evne' must be one of even"),
        (("probe.sets={mine: '0-7'}",), "probe.sets.mine=0-7: must name layers 0 to 3"),
        (("probe.layers='0-1'", "probe.sets={mine: '1-2'}"), "mine=1-2: layer 2 is not among those"),
        (("choice.dense=4",), "choice.dense=4: 4 layers are probed; .* at most 3"),
        (("choice.rankings={other: none.yaml}",), "choice.rankings.other=none.yaml: cannot be read"),
        (("probe.recall=[nedle]",), "probe.recall: 'nedle' must be one of needle"),
        (("data=null",), "data: not set"),
        (("held_out=1",), "held_out=1: must be at most 0.9"),
        (("length=2048",), "length=2048: the model's context is 1024 tokens"),
        (("probe.relaxations=[fixed]", "documents=9"), "probe.fixed: has 0 tokens, and 96 are read"),
    ],
)
def test_mistakes_are_told_in_one_line(
    type_: Callable[..., Result], words: tuple[str, ...], message: str
) -> None:
    result = type_("study", "probe", *QUICK, *words)
    assert result.exit_code == 2, result.output
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ") and re.search(message, error), error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "plan.equal_at: not set; .* plan.equal_at=1088 selector.budget=640"),
        (("plan.equal_at=128", "plan.ratio=7"), "plan.ratio=7: leaves no anchor: .*the model has 4; take 3"),
        (("plan.equal_at=512", "plan.ratio=1,inf"), r"alone read 1,024 of the 256 tokens"),
        (("plan.equal_at=128", "plan.ratio=x"), "plan.ratio=x: must be a whole number, or inf"),
    ],
)
def test_mistakes_of_plans(type_: Callable[..., Result], words: tuple[str, ...], message: str) -> None:
    model = ("model.name=model", "model.gates=gates", "engine.block_size=8", "selector.budget=64")
    result = type_("study", "plan", *model, *words)
    assert result.exit_code == 2, result.output
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ") and re.search(message, error), error


def test_plans_read_alike(type_: Callable[..., Result]) -> None:
    """Points of a sweep: both cheap works, anchors first and last where there are any, and dense."""
    model = ("model.name=model", "model.gates=gates", "engine.block_size=8", "selector.budget=96")
    words = ("study", "plan", *model, "plan.equal_at=128", "task.limit=2", "--dry-run", "--json")
    result = type_(*words)
    assert result.exit_code == 0, result.output
    points = {point["name"]: point["plan"] for point in json.loads(result.stdout)["points"]}
    assert len(points) == 1 + 2 + 2 * 2 * 2
    codes = sorted(code.partition("@")[0] for code in points.values())
    assert codes == sorted(
        ["4L:dense", "4L:window96b8", "4L:seer96b8"]
        + 2 * ["4L:3window88b8+1dense", "4L:3seer88b8+1dense"]
        + ["4L:2window64b8+2dense", "4L:2dense+2window64b8", "4L:2seer64b8+2dense", "4L:2dense+2seer64b8"]
    )
    fewer = json.loads(type_(*words, "plan.ratio=3", "plan.cheap=window").stdout)["points"]
    assert len(fewer) == 1 + 2  # one value stands in place of those that the study would take


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_cells_in_workers(place: Path, monkeypatch: pytest.MonkeyPatch, whole: Any) -> None:
    """Two of them come to what one process came to."""
    monkeypatch.chdir(place)
    words = (*QUICK, "cluster.workers=2", "cluster.num_cpus=0.5")
    result = CliRunner().invoke(app, ["study", "probe", *words, "name=ray"])
    assert result.exit_code == 0, result.output
    assert_alike(tables(place / "runs" / "ray"), whole[1])


@pytest.mark.long
def test_killed_with_its_workers(place: Path, whole: Any) -> None:
    """The driver, by SIGKILL, in the middle of its cells; what is left of its Ray ends by itself."""
    words = (*QUICK, "name=killed", "cluster.workers=1", "cluster.num_cpus=1", "results.report=false")
    command = [sys.executable, "-m", "seer_ray.cli.app", "study", "probe", *words]
    cells = place / "runs" / "killed" / "cells"
    for least in (1, 12):
        process = subprocess.Popen(command, cwd=place)
        while process.poll() is None and len(list(cells.glob("*.parquet"))) < least:
            time.sleep(0.1)
        process.kill()
        process.wait()
    subprocess.run(command, cwd=place, check=True)
    assert_alike(tables(place / "runs" / "killed"), whole[1])
