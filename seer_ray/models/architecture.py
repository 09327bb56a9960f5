"""Which models the one attention of ``patch`` computes, and how far they reach."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.models.mixers import MIXERS, layer_mixers
from seer_ray.models.rope import head_dim, rope_parameters

SUPPORTED = ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "arcee")
"""Model types whose decoder is: embedding, layers with q, k, v and o projections and perhaps a norm of each
head's q and k, rotate-half RoPE over the whole head in every layer, final norm, head. Many relatives differ
in one of these without a trace in their module names: so a list, and a test of each against transformers."""


def check_config(config: PreTrainedConfig, option: str) -> None:
    """That the model is one of those.

    Raises:
        ConfigError: says what is not.
    """
    if config.model_type not in SUPPORTED:
        raise ConfigError(
            f"{option}: model type {config.model_type} is not supported; supported are {', '.join(SUPPORTED)}"
        )
    try:
        rope_parameters(config)
        layer_mixers(config)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def check_architecture(model: nn.Module, option: str) -> None:
    """That every layer has the modules which the attention of ``patch`` calls, in the shapes of the config.

    Raises:
        ConfigError: names the first module that is missing or has another shape.
    """
    config: Any = model.config
    check_config(config, option)
    width = head_dim(config)
    queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
    sizes = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "o_proj": config.hidden_size}
    model_body: Any = model.model
    for index, layer in enumerate(model_body.layers):
        for name, size in sizes.items():
            module = getattr(layer.self_attn, name, None)
            if getattr(module, "out_features", None) != size:
                raise ConfigError(f"{option}: layer {index} has no self_attn.{name} with {size} outputs")
        for name in ("q_norm", "k_norm"):
            norm = getattr(layer.self_attn, name, None)
            if norm is not None and tuple(norm.weight.shape) != (width,):
                raise ConfigError(f"{option}: layer {index}: self_attn.{name} is not over a head of {width}")


def is_mixture(config: PreTrainedConfig) -> bool:
    """Whether layers are mixtures of experts."""
    return hasattr(config, "num_experts") or hasattr(config, "num_local_experts")


def max_context(config: PreTrainedConfig) -> int:
    """Longest sequence, in tokens, on which the model is what it was trained to be.

    With yarn, the stretched context. Where layers have a sliding window, the window: up to there they
    equal full attention, which is all that is computed here.
    """
    rope = rope_parameters(config)
    context = config.max_position_embeddings
    if rope["rope_type"] == "yarn":
        context = max(context, int(rope.get("original_max_position_embeddings", context) * rope["factor"]))
    window = getattr(config, "sliding_window", None)
    if window and any(MIXERS[name].windowed for name in layer_mixers(config)):
        context = min(context, window)
    return context
