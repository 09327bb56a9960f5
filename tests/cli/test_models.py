"""``seer-ray models``: the table of types, and one model from its folder."""

from __future__ import annotations

import json
from pathlib import Path

from families import make_family

from cli.conftest import Invoke
from seer_ray.models.families import FAMILIES, TEXT_PARTS


def test_all_types_fit_a_terminal(invoke: Invoke) -> None:
    out = invoke("models").output
    assert all(name in out for name in {**FAMILIES, **TEXT_PARTS})
    assert max(map(len, out.splitlines())) <= 80
    rows = {row["model_type"]: row for row in json.loads(invoke("models", "--json").output)["model_types"]}
    assert rows.keys() == {*FAMILIES, *TEXT_PARTS}
    assert rows["qwen3"]["lacks"] == [] and rows["llama"]["runs"] == "ours"
    assert rows["gemma3"] == rows["gemma3_text"] | {"model_type": "gemma3", "text_part": "gemma3_text"}


def test_a_model(invoke: Invoke, tmp_path: Path) -> None:
    make_family("qwen3_next").config.save_pretrained(tmp_path / "hybrid")
    out = invoke("models", "hybrid").output
    assert "2 x (1 linear, 1 attention)" in out and "tensor parallel" in out and "states" in out
    assert max(map(len, out.splitlines())) <= 80
    said = json.loads(invoke("models", "hybrid", "--json").output)
    assert said["layers"] == ["linear", "attention"] * 2
    assert said["sequence_bytes"] == 1024 * said["kv_bytes_per_token"] + said["state_bytes"]


def test_a_choice_and_what_is_none(invoke: Invoke) -> None:
    assert "4 attention" in invoke("models", "reasoner").output
    refused = invoke("models", "nowhere/at/all")
    assert refused.exit_code == 2 and "model.name=nowhere/at/all: no such file or folder" in refused.output
