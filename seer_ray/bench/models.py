"""Models of the engines' benchmarks: real ones, or shapes with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from seer_ray.config.options import ModelConfig
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates
from seer_ray.models.load import DTYPES, LoadedModel, load_model, load_tokenizer, resolve_device
from seer_ray.models.prefill_gates import PrefillGateConfig, init_prefill_gates
from seer_ray.models.rope import head_dim
from seer_ray.models.source import REASONER

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-4b": {"hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True},
    "qwen3-8b": {"hidden_size": 4096, "intermediate_size": 12288},
    "qwen3-14b": {
        "hidden_size": 5120,
        "intermediate_size": 17408,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
}
"""What differs from ``COMMON``: times do not depend on what the weights say."""
COMMON: dict[str, Any] = {
    "vocab_size": 151936,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 1 << 18,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}


class RandomGates(LoadedModel):
    """Untrained gates: what they select is noise, what they cost is real."""

    def load_gates(self, block_size: int) -> Any:
        config = GateConfig(block_size, head_dim(self.hf_config))
        return init_gates(self.hf_config, config, device=self.device)

    def load_prefill_gates(self, block_size: int) -> Any:
        config = PrefillGateConfig(block_size, head_dim(self.hf_config))
        return init_prefill_gates(self.hf_config, config, device=self.device)


def bench_model(name: str, dtype: str) -> RandomGates:
    """A model with random gates.

    Args:
        name: of ``SHAPES``: random weights; else as ``model.name``.
        dtype: as ``model.dtype``.

    Raises:
        ConfigError: there is no such model.
    """
    if name not in SHAPES:
        return RandomGates(**vars(load_model(ModelConfig(name=name, dtype=dtype))))
    return random_model("qwen3", COMMON | SHAPES[name], dtype, name)


def random_model(kind: str, settings: dict[str, Any], dtype: str, name: str = "random") -> RandomGates:
    """A model of random weights, with random gates.

    Args:
        kind: model type of transformers.
        settings: of its config.
        dtype: as ``model.dtype``.
        name: that it goes by.
    """
    device, config = resolve_device("auto"), CONFIG_MAPPING[kind](**settings)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    model.eval().requires_grad_(False)
    # Of its text nobody reads a word.
    tokenizer = load_tokenizer(ModelConfig(name=REASONER))
    return RandomGates(model, tokenizer, config, name, DTYPES[dtype], device)
