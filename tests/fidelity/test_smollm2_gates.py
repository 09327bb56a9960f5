"""The gates of SmolLM2 that come with the package, on a kind of text that they were not trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from seer_ray.config.options import ModelConfig
from seer_ray.corpora.documents import Document
from seer_ray.fidelity.quality import measure
from seer_ray.fidelity.settings import Setting
from seer_ray.models.load import load_model
from seer_ray.models.source import ASSETS


@pytest.mark.slow  # fetches 93 MB
def test_they_keep_more_of_the_attention_than_quest() -> None:
    loaded = load_model(ModelConfig(name="smollm2", gates="smollm2", device="cpu"))
    source = loaded.tokenizer(Path(argparse.__file__).read_text())["input_ids"][:1536]
    document = Document("argparse", "python", torch.tensor(source))
    budgets, gates = [Setting.of("1/8")], {"seer": loaded.load_gates(16)}
    figures = measure(
        loaded.model, [document], budgets, gates, ["oracle", "quest"], block_size=16, outputs=False
    )
    (seer,) = (row for row in figures.table() if row["selector"] == "seer")
    assert seer["of_oracle"] > 0.95
    by_layer = {(row["selector"], row["layer"]): row["of_oracle"] for row in figures.layer_table("layer")}
    above = [by_layer["seer", layer] > by_layer["quest", layer] for layer in range(len(gates["seer"]))]
    assert sum(above) >= 0.9 * len(above)


def test_they_say_how_they_were_made() -> None:
    folder = ASSETS / "smollm2" / "gates"
    card = (folder / "README.md").read_text()
    assert "Attention gates for smollm2" in card and "seer-ray distill" in card
    assert (folder / "attn_gate_weights.safetensors").stat().st_size < 5_000_000
