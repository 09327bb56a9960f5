"""What is said of models before their weights are there is what the engine then finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILY_NAMES, make_family
from tiny import tiny_tokenizer
from transformers import CONFIG_MAPPING

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, ModelConfig, PlanConfig, SelectorConfig
from seer_ray.engine.runner import Runner
from seer_ray.engine.states import StateSlots
from seer_ray.models.architecture import check_config, is_mixture
from seer_ray.models.catalog import check_engine, describe
from seer_ray.models.families import FAMILIES, family_of
from seer_ray.models.load import LoadedModel
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.patch import attention_shape

BLOCK = 16


def config_of(folder: Path, hf_config: Any) -> ModelConfig:
    """A folder without weights."""
    hf_config.save_pretrained(folder)
    return ModelConfig(name=str(folder), dtype="float32")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_what_is_said_is_what_the_engine_finds(family: str, tmp_path: Path) -> None:
    model = make_family(family)
    said = describe(config_of(tmp_path, model.config))
    loaded = LoadedModel(model, tiny_tokenizer(), model.config, family, torch.float32, torch.device("cpu"))
    runner = Runner(loaded, EngineConfig(block_size=BLOCK), SelectorConfig(), PlanConfig())
    shape = attention_shape(model)
    assert said.layers == list(shape.mixers) == [spec.mixer for spec in runner.plan.layers]
    pages = {
        group.window: size
        for group, size in zip(runner.cache.groups, runner.capacity.page_bytes, strict=True)
    }
    assert said.kv_bytes_per_token * BLOCK == pages.pop(None, 0)
    assert said.window_bytes * BLOCK == sum(size * reach for reach, size in pages.items())
    assert said.state_bytes == StateSlots.bytes_of(shape.states)
    assert (said.max_context, said.window) == (loaded.max_context, shape.window)
    assert runner.captured is not None


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_table_names_what_a_type_may_have(family: str) -> None:
    config = make_family(family).config
    assert {*layer_mixers(config)} <= {*family_of(config).layers}
    assert is_mixture(config) == FAMILIES[family].experts


def test_layers_in_a_line(tmp_path: Path) -> None:
    for layers, words in {
        24: "6 x (3 linear, 1 attention)",
        26: "6 x (3 linear, 1 attention), 2 linear",
        3: "3 linear",
    }.items():
        said = describe(config_of(tmp_path, CONFIG_MAPPING["qwen3_5_text"](num_hidden_layers=layers)))
        assert said.pattern == words


def test_hybrids_without_experts_are_no_mixtures() -> None:
    kind = CONFIG_MAPPING["nemotron_h"]
    dense = kind(layers_block_type=["linear_attention", "mlp", "full_attention", "mlp"])
    assert not is_mixture(dense)
    assert is_mixture(kind(layers_block_type=["linear_attention", "moe"]))


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": 4096,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
}


@pytest.mark.parametrize(
    ("family", "overrides", "engine", "words"),
    [
        (
            "qwen3_next",
            {},
            {"tensor_parallel": 2},
            "engine.tensor_parallel=2: model type qwen3_next runs with",
        ),
        (
            "qwen3",
            {},
            {"tensor_parallel": 3},
            "engine.tensor_parallel=3: must divide the model's num_key_value",
        ),
        (
            "phi3",
            {"rope_parameters": LONGROPE, "max_position_embeddings": 131072, "num_hidden_layers": 1}
            | {"hidden_size": 64, "num_attention_heads": 4, "original_max_position_embeddings": 4096},
            {"max_length": 4097},
            "engine.max_length=4097: the model's context is 4096 tokens; beyond, its rope_type=longrope",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_its_config(
    family: str, overrides: dict[str, Any], engine: dict[str, Any], words: str
) -> None:
    config = CONFIG_MAPPING[family](**overrides)
    check_engine(config, EngineConfig())
    with pytest.raises(ConfigError) as caught:
        check_engine(config, EngineConfig(**engine))
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_attention_with_a_soft_cap_is_refused() -> None:
    config = CONFIG_MAPPING["gemma3_text"](attn_logit_softcapping=50.0)
    with pytest.raises(ConfigError, match=r"^model\.name=x: .*gemma3_text: attn_logit_softcapping is not"):
        check_config(config, "model.name=x")


def test_a_model_is_described_without_its_weights(tmp_path: Path) -> None:
    """One of many layers and experts, of 80 billion weights."""
    kind = CONFIG_MAPPING["qwen3_next"]
    said = describe(config_of(tmp_path, kind(num_hidden_layers=48, head_dim=256, num_key_value_heads=2)))
    assert said.pattern == "12 x (3 linear, 1 attention)"
    assert said.kv_bytes_per_token == 12 * 2 * 2 * 256 * 4
    assert json.dumps(said.lacks) == '["tensor parallel"]'
