"""The gates of SmolLM2 that come with the package, on a kind of text that they were not trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from seer_ray.config.options import ModelConfig
from seer_ray.corpora.documents import Document
from seer_ray.fidelity.prompt_passes import WINDOW
from seer_ray.fidelity.prompts import measure_prompts
from seer_ray.fidelity.quality import ORACLE, measure
from seer_ray.fidelity.settings import Setting
from seer_ray.models.load import load_model
from seer_ray.models.source import ASSETS, GATES, PREFILL_GATES


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


@pytest.mark.slow
def test_those_of_prompts_keep_more_of_the_attention_than_the_most_recent_blocks() -> None:
    loaded = load_model(ModelConfig(name="smollm2", prefill_gates="smollm2", device="cpu"))
    source = loaded.tokenizer(Path(argparse.__file__).read_text())["input_ids"][:1536]
    document = Document("argparse", "python", torch.tensor(source))
    gates = {"prefill": loaded.load_prefill_gates(16)}
    figures = measure_prompts(loaded.model, [document], [0.2], gates, [ORACLE, WINDOW], block=16)
    mass = {row["selector"]: row["mass"] for row in figures.table()}
    assert mass["prefill"] > 0.97 * mass[ORACLE] > mass[WINDOW]


def test_they_say_how_they_were_made() -> None:
    for kind, most in ((GATES, 5_000_000), (PREFILL_GATES, 7_000_000)):
        folder = ASSETS / "smollm2" / kind
        card = (folder / "README.md").read_text()
        assert "Attention gates for smollm2" in card and "seer-ray distill" in card
        assert (folder / "attn_gate_weights.safetensors").stat().st_size < most
