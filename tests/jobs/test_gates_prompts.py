"""``seer-ray gates prompts`` as it is typed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tiny import make_tiny, save_tiny
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates
from seer_ray.models.prefill_gates import PrefillGateConfig, init_prefill_gates, save_prefill_gates

QUICK = (
    "model.name=model",
    "data=[{path: prose.jsonl, join: true}]",
    "tracking.enabled=false",
    "held_out=0.3",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    save_tiny(folder / "model", "qwen3")
    config = make_tiny("qwen3").config
    save_gates(folder / "decode", init_gates(config, GateConfig(16, 8), seed=1), config, "tiny")
    gates = init_prefill_gates(config, PrefillGateConfig(16, 16), seed=1)
    save_prefill_gates(folder / "gates", gates, config, "tiny")
    draw = random.Random(0)
    lines = (json.dumps({"id": str(n), "text": "".join(draw.choices("abcdef ", k=150))}) for n in range(20))
    (folder / "prose.jsonl").write_text("\n".join(lines))
    return folder


def prompts(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "150")
    return CliRunner().invoke(app, ["gates", "prompts", *QUICK, *words])


def test_a_set_beside_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("gates", "model.gates=decode", "length=320", "documents=2", "densities=[0.4,0.2]", "name=one")
    result = prompts(place, monkeypatch, *words, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["gates"] == {"prefill": "gates", "decode": "decode"} and report["block_size"] == 16
    rows = {(row["budget"], row["selector"]): row for row in report["table"]}
    assert set(rows) == {
        (density, name)
        for density in ("0.4", "0.2")
        for name in ("prefill", "decode", "oracle", "best", "window")
    }
    for row in rows.values():
        assert 0 < row["mass"] <= 1 and row["perplexity"] > 1 and row["dense"] > 1
    assert rows["0.2", "best"]["mass"] < rows["0.4", "best"]["mass"]
    folder = place / "runs" / "one"
    for file in ("layers.parquet", "outputs.parquet", "losses.parquet", "report.html", "metrics.json"):
        assert (folder / file).exists(), file
    assert "Perplexity" in (folder / "report.html").read_text()
    assert "perplexity/0.4/prefill" in (folder / "metrics.json").read_text()


def test_heads_share_a_density(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found on what is not held out, measured on what is, and written with the gates, which then say it."""
    words = ("length=480", "documents=1", "densities=[0.3]", "selectors=[]")
    result = prompts(place, monkeypatch, "gates", *words, "allocate=1", "name=found", "--json")
    assert result.exit_code == 0, result.output
    rows = {row["selector"]: row for row in json.loads(result.stdout)["table"]}
    assert set(rows) == {"prefill", "allocated"} and rows["allocated"]["rows"] == rows["prefill"]["rows"]
    made = place / "runs" / "found" / "gates"
    weights = "attn_gate_weights.safetensors"
    assert (made / weights).read_bytes() == (place / "gates" / weights).read_bytes()
    result = prompts(place, monkeypatch, str(made), *words, "name=again", "--json")
    again = {row["selector"]: row for row in json.loads(result.stdout)["table"]}
    assert again == rows
    asked = (*words, "outputs=false", "needles=[needle]", "needle_prompts=2", "name=asked", "--json")
    result = prompts(place, monkeypatch, str(made), *asked)
    kept = {row["selector"]: row["kept"] for row in json.loads(result.stdout)["needles"]}
    assert kept["allocated"] != kept["prefill"]
    engine = ("engine.block_size=16", "selector.prefill.density=0.3", f"model.prefill_gates={made}")
    planned = CliRunner().invoke(app, ["run", "model.name=model", *engine, "--dry-run"])
    assert "~d0.3-allocated" in planned.output


def test_lengths_needles_and_shared(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("gates", "length=480", "lengths=[320,480]", "documents=1", "densities=[0.2]", "name=more")
    words += ("outputs=false", "selectors=[shared]", "needles=[needle]", "needle_prompts=2")
    result = prompts(place, monkeypatch, *words)
    assert result.exit_code == 0, result.output
    assert "length" in result.output and "needle" in result.output and "shared" in result.output
    metrics = json.loads((place / "runs" / "more" / "metrics.json").read_text())
    assert {"mass/0.2/prefill/320", "mass/0.2/shared/480", "kept/0.2/shared/needle"} <= set(metrics)
    assert (place / "runs" / "more" / "needles.parquet").exists()


def test_as_a_person_reads_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = prompts(place, monkeypatch, "length=320", "documents=1", "outputs=false", "block_size=16")
    assert result.exit_code == 0, result.output
    assert "density" in result.output and "oracle" in result.output and "A-shape" not in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("decode",), "model.prefill_gates=decode: its config.json does not describe prefill gates"),
        (("gates", "densities=[0]"), "densities=[0.0]: must be shares above 0"),
        (("gates", "selectors=[quest]"), "selectors: 'quest' must be one of oracle, best, window"),
        (("selectors=[shared]",), "selectors: shared is a way to read prefill gates; name some"),
        (("gates", "needles=[tracking]"), "needles: 'tracking' must be one of needle, needle_keys"),
        (("gates", "lengths=[8192]"), "lengths=[8192]: documents are cut at length=4096"),
        (("gates", "block_size=32"), "block_size=32: the prefill gates have 16"),
        (("gates", "length=64"), "length=64: no document has rows that would leave something out"),
        (("gates", "gates"), "gates gates: gates prompts takes one set of gates"),
    ],
)
def test_refused(place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str) -> None:
    result = prompts(place, monkeypatch, *words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
