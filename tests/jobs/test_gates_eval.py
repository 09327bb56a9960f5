"""``seer-ray gates eval`` as it is typed: tiny model, two gate sets, texts in files."""

from __future__ import annotations

import json
import random
import re
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from tiny import make_tiny, save_tiny, tiny_tokenizer
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.corpora.documents import Document, parse_sources, read_documents
from seer_ray.corpora.split import join, split_documents
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates

BLOCK = 16
QUICK = ("tracking.enabled=false", "length=320", "budgets=[1/4]", "beyond=200", "selectors=[oracle,window]")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, gates ``a`` and ``b``, and two kinds of text."""
    folder = tmp_path_factory.mktemp("gates")
    save_tiny(folder / "model", "qwen3")
    config = make_tiny("qwen3").config
    for seed, name in enumerate("ab"):
        gates = init_gates(config, GateConfig(block_size=BLOCK, gate_dim=8), seed=seed)
        save_gates(folder / "runs" / name / "gates", gates, config, "tiny")
    draw = random.Random(0)
    for kind, alphabet in (("prose", string.ascii_lowercase + "    "), ("digits", string.digits)):
        lines = [
            json.dumps({"id": f"{kind}{n}", "text": "".join(draw.choices(alphabet, k=length))})
            for n, length in enumerate([150, 300, 400, 200, 330])
        ]
        (folder / f"{kind}.jsonl").write_text("\n".join(lines))
    (folder / "one.jsonl").write_text(json.dumps({"id": "x", "text": "a" * 300}))
    return folder


def evaluate(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "120")
    return CliRunner().invoke(app, ["gates", "eval", "model.name=model", *QUICK, *words])


def rows_of(report: dict[str, Any], **where: Any) -> list[dict[str, Any]]:
    return [row for row in report["table"] if all(row[key] == value for key, value in where.items())]


def test_two_sets_on_two_kinds_of_text(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON, the files, and the same figures in all of them."""
    words = ("runs/a/gates", "runs/b/gates", "data=[prose.jsonl,digits.jsonl]", "held_out=1", "documents=2")
    result = evaluate(place, monkeypatch, *words, "name=two", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["gates"] == {"a": "runs/a/gates", "b": "runs/b/gates"}
    assert (report["block_size"], report["documents"]) == (BLOCK, 4)
    assert report["tokens"] == 4 * 320  # the longest two of each kind, cut
    assert {(row["selector"], row["positions"]) for row in report["table"]} == {
        (selector, positions) for selector in ("a", "b", "oracle", "window") for positions in ("all", ">200")
    }
    assert {row["source"] for row in report["sources"]} == {"prose.jsonl", "digits.jsonl"}
    (oracle,) = rows_of(report, selector="oracle", positions="all")
    assert oracle["recall"] == oracle["of_oracle"] == 1
    (window,) = rows_of(report, selector="window", positions="all")
    assert window["documents"] == 4
    assert window["rows"] == 4 * len(range(160, 320, 7))
    assert window["kl"] > 0
    by_layer = [r for r in report["layers"] if (r["selector"], r["positions"]) == ("window", "all")]
    assert window["worst_of_oracle"] == min(row["of_oracle"] for row in by_layer)
    assert window["mass"] == pytest.approx(sum(row["mass"] for row in by_layer) / 2)

    folder = place / "runs" / "two"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["mass/1_4/window"] == window["mass"]
    assert metrics["top1/1_4/a/beyond_200"] == rows_of(report, selector="a", positions=">200")[0]["top1"]
    layers = parquet.read_table(folder / "layers.parquet").to_pylist()
    assert len(layers) == 4 * 2 * 4 * 2  # documents, layers, selectors, positions
    outputs = parquet.read_table(folder / "outputs.parquet").to_pylist()
    assert len(outputs) == 4 * 4 * 2
    kl = [row["kl"] for row in outputs if (row["selector"], row["positions"]) == ("window", "all")]
    assert sum(kl) / 4 == pytest.approx(window["kl"])
    for name in ("mass-by-layer-1-4", "top1", "kl"):
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / "plots" / f"{name}.svg").read_text()


def test_what_is_printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("runs/a/gates", "data=prose.jsonl", "held_out=1", "documents=1", "outputs=false")
    result = evaluate(place, monkeypatch, *words)
    assert result.exit_code == 0, result.output
    for text in (
        "all positions",
        ">200",
        "1/4",
        "KV",
        "seer",
        "oracle",
        "window",
        "mass at 1/4 by layer",
        "runs/a/gates",
    ):
        assert text in result.stdout
    assert "pass 1/1" in result.stderr


def test_only_held_out_documents_are_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that training with the same share never sees."""
    words = ("runs/a/gates", "data=prose.jsonl", "held_out=0.4", "documents=9", "outputs=false", "name=held")
    assert evaluate(place, monkeypatch, *words).exit_code == 0
    looked = set(parquet.read_table(place / "runs/held/layers.parquet")["document"].to_pylist())

    def read() -> list[Document]:
        (source,) = parse_sources("prose.jsonl")
        return list(read_documents(source, tiny_tokenizer(), "model"))

    corpus = split_documents(read(), 128, BLOCK, 0.4, "data")
    assert looked == {document.id for document in corpus.held_out}
    assert not looked & {document.id for document in corpus.train}


def test_joined_documents(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [Document(str(n), "x", torch.full((40,), n)) for n in range(5)]
    made = join(pieces, 100)
    order = [int(document.id) for document in sorted(pieces, key=lambda piece: piece.rank())]
    assert [len(document.tokens) for document in made] == [100, 80]
    assert made[0].tokens.tolist() == [order[0]] * 40 + [order[1]] * 40 + [order[2]] * 20
    assert made[1].tokens.tolist() == [order[3]] * 40 + [order[4]] * 40
    words = ("runs/a/gates", "data=prose.jsonl", "held_out=1", "join=true", "length=640", "outputs=false")
    report = json.loads(evaluate(place, monkeypatch, *words, "name=joined", "--json").stdout)
    assert report["documents"] < 5
    assert report["tokens"] > 640
    (first, *_) = parquet.read_table(place / "runs/joined/layers.parquet")["document"].to_pylist()
    assert first.startswith("joined from prose")


def test_selectors_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        "data=prose.jsonl",
        "held_out=1",
        "documents=1",
        "block_size=16",
        "selectors=[quest,best]",
        "--json",
    )
    result = evaluate(place, monkeypatch, *words)
    report = json.loads(result.stdout)
    assert {row["selector"]: row["kl"] is None for row in report["table"]} == {"quest": False, "best": True}
    assert {row["of_oracle"] for row in report["table"]} == {None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("data=prose.jsonl", "selectors=[quset]"),
            "selectors: 'quset' must be one of .*did you mean 'quest'",
        ),
        (("data=prose.jsonl", "budgets=[some]"), "budgets: 'some' must be tokens"),
        (("data=prose.jsonl", "nowhere/gates"), "nowhere/gates: no such file or folder"),
        (("data=prose.jsonl", "runs/a/gates", "block_size=32"), "block_size=32: the gates have 16"),
        (("data=prose.jsonl", "sets={oracle: runs/a/gates}"), "sets.oracle: is the name of a selector"),
        (
            ("data=prose.jsonl", "runs/a/gates", "length=4096"),
            "length=4096: the model's context is 1024 tokens",
        ),
        (("data=prose.jsonl", "runs/a/gates", "dense_layers=3"), "dense_layers=3: the model has 2 layers"),
        (
            ("data=prose.jsonl", "runs/a/gates", "settings={x: {budget: 64, shares: {2: 2}}}"),
            "settings.x.shares.2=2: must name layers 0 to 1",
        ),
        (
            ("data=prose.jsonl", "runs/a/gates", "settings={x: {head_shares: {0: [1, 2, 3]}}}"),
            "settings.x.head_shares.0=.*: 3 shares, the model has 2 KV heads",
        ),
        (
            ("data=prose.jsonl", "runs/a/gates", "settings={few: {mass: 0.9}}"),
            r"settings.few: .* no shares come from window; set selectors=\[oracle\]",
        ),
        (
            ("data=prose.jsonl", "runs/a/gates", "settings={x: {mas: 0.9}}"),
            "settings.x.mas: must be one of .*did you mean 'mass'",
        ),
        (("data=prose.jsonl", "settings={x: {mass: 1.9}}"), "settings.x.mass=1.9: must be at most 1"),
        (("data=prose.jsonl", "settings={x: {mass: much}}"), "settings.x: Value 'much'"),
        (("data=prose.jsonl", "settings={x: {sink: false}}"), "settings.x.sink=false: set sink"),
        (
            ("data=prose.jsonl", "settings={1/4: {budget: 64}}"),
            "settings.1/4: there is a budget .* of that name",
        ),
        (("data=prose.jsonl", "settings=[nowhere.yaml]"), "settings.nowhere=nowhere.yaml: cannot be read"),
        (("data=prose.jsonl", "budgets=[]"), r"budgets=\[\]: name at least one, .*or settings"),
        (("data=one.jsonl", "runs/a/gates"), "data=one.jsonl: no document is held out .* set held_out=1"),
        (("runs/a/gates",), "data: not set"),
        (("data=prose.jsonl", "selectors=[]"), "sets, selectors: nothing to measure"),
    ],
)
def test_mistakes_are_told_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    result = evaluate(place, monkeypatch, *words)
    assert result.exit_code == 2, result.output
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(message, error), error
