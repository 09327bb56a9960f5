"""``seer-ray gates calibrate`` as it is typed, and its gates as an evaluation and an engine take them."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny, save_tiny
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, load_gates, save_gates

QUICK = ("model.name=model", "data=prose.jsonl", "tracking.enabled=false", "length=320", "held_out=1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its gates for blocks of 16, and texts."""
    folder = tmp_path_factory.mktemp("calibrate")
    save_tiny(folder / "model", "qwen3")
    config = make_tiny("qwen3").config
    gates = init_gates(config, GateConfig(block_size=16, gate_dim=8), seed=1)
    save_gates(folder / "gates", gates, config, "tiny")
    draw = random.Random(0)
    texts = ["".join(draw.choices(string.ascii_lowercase, k=320)) for _ in range(3)]
    (folder / "prose.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return folder


def gates_of(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "150")
    return CliRunner().invoke(app, ["gates", *words, *QUICK])


def by_level(report: dict[str, Any], selector: str) -> dict[float, dict[str, float]]:
    return {row["level"]: row for row in report["calibration"] if row["selector"] == selector}


def test_gates_get_a_temperature_which_an_evaluation_reads(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = gates_of(place, monkeypatch, "calibrate", "gates", "name=fit", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert len(report["temperatures"]) == 2 and all(len(heads) == 2 for heads in report["temperatures"])
    config = make_tiny("qwen3").config
    before, after = (load_gates(source, config, 16) for source in ("gates", "runs/fit/gates"))
    for old, new, heads in zip(before, after, report["temperatures"], strict=True):
        assert old is not None and new is not None
        assert old.temperature is None and new.temperature == tuple(heads)
        for name, weight in old.state_dict().items():
            assert torch.equal(new.state_dict()[name], weight)

    words = ("eval", "sets={a: gates, b: runs/fit/gates}", "selectors=[quest]", "outputs=false", "name=seen")
    result = gates_of(place, monkeypatch, *words, "--json")
    assert result.exit_code == 0, result.output
    seen = json.loads(result.stdout)
    plain, fitted = by_level(seen, "a"), by_level(seen, "b")
    for level, row in by_level(report, "temperature 1").items():
        assert plain[level]["kept"] == pytest.approx(row["kept"], abs=1e-4)
    for level, row in by_level(report, "fitted").items():  # between temperatures that were looked at
        assert fitted[level]["kept"] == pytest.approx(row["kept"], abs=0.02)
    gaps = [[row["kept"] - row["predicted"] for row in rows.values()] for rows in (plain, fitted)]
    assert abs(sum(gaps[1])) < abs(sum(gaps[0]))
    assert set(by_level(seen, "quest")) == set(plain)
    layers = [row for row in seen["calibration_layers"] if row["selector"] == "b"]
    assert {row["layer"] for row in layers} == {0, 1}
    for name in ("calibration", "calibration-by-layer"):
        assert "<svg" in (place / f"runs/seen/plots/{name}.svg").read_text()
        assert "<svg" in (place / f"runs/fit/plots/{name}.svg").read_text()
    assert (place / "runs/seen/calibration.parquet").exists()


def test_what_is_printed_and_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = gates_of(place, monkeypatch, "calibrate", "gates", "documents=1")
    assert result.exit_code == 0, result.output
    for text in ("temperature 1: predicted", "fitted: predicted", "one for each KV head"):
        assert text in result.stdout
    result = gates_of(place, monkeypatch, "calibrate")
    assert result.exit_code == 2 and "model.gates: not set; name the gates" in result.output
