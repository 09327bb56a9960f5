"""``seer-ray study train`` as it is typed: its tables, going on after a stop, and mistakes."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from cells_here import Here, typist
from typer.testing import Result

from seer_ray.study import trainer

SIZES = (
    *("architecture.hidden_size=32", "architecture.layers=2", "architecture.head_dim=16"),
    *("architecture.heads=2", "architecture.kv_heads=2", "architecture.intermediate_size=32"),
)
QUICK = (
    *("data.text=text.jsonl", "tracking.enabled=false", "train.steps=3", "train.batch_tokens=256", *SIZES),
    *("study.mixers=[mlp]", "study.layouts=[uniform,even]", "study.decode=2", "evaluation.contexts=[16]"),
    *(f"study.learn.recall.{word}" for word in SIZES),
    *("study.learn.recall.train.steps=3", "study.learn.recall.evaluation.problems=2"),
)
MEASURED = ("train/seconds", "decode/ms_a_step")
"""Not the same twice."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text."""
    folder, draw = tmp_path_factory.mktemp("trained"), random.Random(0)
    lines = (
        json.dumps({"id": str(n), "text": "".join(draw.choices(string.ascii_lowercase, k=90))})
        for n in range(40)
    )
    (folder / "text.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def type_(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Types a command, in that folder."""
    return typist(place, monkeypatch, "study", "train")


def tables(folder: Path) -> list[list[dict[str, Any]]]:
    """But for what is timed."""
    names = ("measures", "models", "pareto", "claims")
    rows = [parquet.read_table(folder / f"{name}.parquet").to_pylist() for name in names]
    return [[row for row in table if row.get("name") not in MEASURED] for table in rows]


def test_a_grid(place: Path, type_: Callable[..., Result]) -> None:
    """Every model is measured once for each seed; means, differences and claims follow; models run."""
    result = type_(*QUICK, "name=whole", "study.keep_models=true", "--json")
    assert result.exit_code == 0, result.output
    said, folder = json.loads(result.stdout), place / "runs" / "whole"
    measures, models, pareto, claims = tables(folder)
    assert said["cells"] == 2 * 3 * 2 and len(list((folder / "cells").glob("*.parquet"))) == 12
    by = {(row["learn"], row["mixer"], row["layout"], row["name"]): row for row in models}
    text, mixed = ("text", "mlp", "even"), ("recall", "mlp", "even")
    assert {"16_pairs/token_accuracy", "memory/at_128"} <= {name for *model, name in by if (*model,) == mixed}
    for row in models:
        own = [
            one["value"]
            for one in measures
            if all(one[name] == row[name] for name in ("learn", "mixer", "layout", "name"))
        ]
        assert len(own) == 2 and row["mean"] == pytest.approx(sum(own) / 2)
        if row["layout"] != "all" and row["than"] is not None:
            beside = by[row["learn"], "attention", "all", row["name"]]
            assert row["than"] == pytest.approx(row["mean"] - beside["mean"])
    # Every other layer keeps K and V, and the others nothing.
    whole, half = (by[*model, "memory/at_2048"]["mean"] for model in (("text", "attention", "all"), text))
    assert half == whole / 2 and by[*text, "reads/at_2048"]["mean"] == 1024
    weights = [row["mean"] for row in models if row["name"] == "weights" and row["learn"] == "text"]
    assert max(weights) / min(weights) < 1.01
    # An MLP sees nothing but its token, whatever stands before it.
    alone = [row for row in claims if row["name"] == "G5"]
    assert [row["holds"] for row in alone] == [True]
    assert by["text", "mlp", "uniform", "text_context_16/loss"]["mean"] == pytest.approx(
        by["text", "mlp", "uniform", "text/loss"]["mean"], abs=1e-6
    )
    assert by[*text, "text_skip/loss"]["mean"] != by[*text, "text/loss"]["mean"]
    assert any(row["best"] for row in pareto) and {row["learn"] for row in pareto} == {"recall"}
    page = (folder / "report.html").read_text()
    for title in ("What was learned: text", "What the papers say", "Recall against bytes"):
        assert title in page
    kept = list((folder / "models").glob("*/model"))
    assert len(kept) == 12 and not list((folder / "models").glob("*/checkpoints"))
    assert all((model / "model.safetensors").exists() and (model / "README.md").exists() for model in kept)


def test_killed_and_run_again_it_comes_to_the_same(
    place: Path, type_: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two cells, and within one: its last checkpoint is gone on with."""
    one, two = Here(stop=5), Here()
    assert type_(*QUICK, "name=twice", here=one).exit_code == 130
    steps: list[int] = []
    whole = trainer.pretrain_alone

    def dies(config: Any, folder: str, device: str) -> Any:
        steps.append(1)
        whole(config, folder, device, lambda step, metrics: step == 2)
        raise RuntimeError("killed")

    monkeypatch.setattr(trainer, "pretrain_alone", dies)
    assert type_(*QUICK, "name=twice", here=Here()).exit_code == 1 and steps == [1]
    monkeypatch.setattr(trainer, "pretrain_alone", whole)
    (begun,) = (place / "runs" / "twice" / "models").iterdir()
    assert list((begun / "checkpoints").iterdir())
    assert type_(*QUICK, "name=twice", here=two).exit_code == 0
    assert len(one.done + two.done) == 12
    assert tables(place / "runs" / "twice") == tables(place / "runs" / "whole")
    assert not list((place / "runs" / "twice" / "models").iterdir())  # nobody asked to keep them


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("study.mixers=[glaa]",), "'glaa' must be one of .*did you mean 'gla'"),
        (("study.mixers=[attention]",), "'attention' is the anchor, which is trained anyway"),
        (("study.layouts=['3:1 first']",), "'3:1 first': plan.ratio=3: needs 4 layers, .*layers=2"),
        (("study.layouts=[quarter]",), "'quarter': plan.named=quarter: leaves no anchor"),
        (("study.layouts=[evne]",), "'evne' must be one of uniform, even.*did you mean 'even'"),
        (("study.layouts=[all_anchor]",), "'all_anchor' leaves no layer to mlp"),
        (("study.seeds=0",), "study.seeds=0: must be at least 1"),
        (("train.batch_tokens=64",), "train.batch_tokens=64: must hold a row of train.length=128"),
        (("study.learn.recall.data.end=60",), "study.learn.recall: attention: data.end=60: 60 pairs"),
        (("study.learn.recall.data.ende=60",), "learn.recall.data.ende=60: no such option; did you mean"),
        (("study.learn.recall.plan.ratio=3",), "study.learn.recall: layers are laid out by study.mixers"),
        (("architecture.mixers={'0': mlp}",), "architecture.mixers=.*: means nothing in a study"),
        (("study.lengths=[]", "study=relaxed-cpuu"), "no such choice, .* did you mean study=relaxed-cpu"),
    ],
)
def test_mistakes_are_told_in_one_line(
    type_: Callable[..., Result], words: tuple[str, ...], message: str
) -> None:
    result = type_(*QUICK, *words)
    assert result.exit_code == 2, result.output
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ") and re.search(message, error), error


@pytest.mark.parametrize("study", ["relaxed-cpu", "linear-cpu", "relaxed-gpu-small", "linear-gpu-small"])
def test_presets_are_sound(type_: Callable[..., Result], study: str) -> None:
    """What there is to do is told, with as many models as the paper has."""
    result = type_(f"study={study}", "architecture.tokenizer=null", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["cells"] >= 2 * 13 and len(said["about"]) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "claims"),
    [
        (("study=linear-cpu", "study.mixers=[gated_deltanet,retnet]", "study.learn={recall: {}}"), {"G1"}),
        (
            ("study=relaxed-cpu", "study.mixers=[mlp,nonapproximate]", "study.learn={text: {}}"),
            {"G2", "G3", "G4", "G5"},
        ),
    ],
)
def test_presets_learn_what_the_papers_say(
    type_: Callable[..., Result], words: tuple[str, ...], claims: set[str]
) -> None:
    """One seed of the models that claims are about."""
    result = type_(*words, "study.seeds=1", "study.decode=0", "tracking.enabled=false", "--json")
    assert result.exit_code == 0, result.output
    told = [claim for claim in json.loads(result.stdout)["claims"] if claim["holds"] is not None]
    assert {claim["name"] for claim in told} == claims
    assert all(claim["holds"] for claim in told), told
