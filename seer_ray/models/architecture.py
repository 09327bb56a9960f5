"""Which models can be decoded, and how far they reach."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.models.families import family_of
from seer_ray.models.mixers import MIXERS, layer_mixers
from seer_ray.models.rope import head_dim, rope_parameters, ropes

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""What configs call their number."""


def check_config(config: PreTrainedConfig, option: str) -> None:
    """That the model is of a supported type, with layers that are.

    Raises:
        ConfigError: says what is not.
    """
    try:
        family, mixers = family_of(config), layer_mixers(config)
        if other := sorted({name for name in mixers if _keeps_more(name) and not family.state}):
            raise ConfigError(
                f"model type {config.model_type}: with layers of kind {other[0]} it is not supported"
            )
        if not family.hosted:
            rope_parameters(config)
        elif getattr(config, "attn_logit_softcapping", None):
            raise ConfigError(f"model type {config.model_type}: attn_logit_softcapping is not supported")
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _keeps_more(name: str) -> bool:
    """Than K and V."""
    return MIXERS[name].state or MIXERS[name].attention is None


def check_architecture(model: nn.Module, option: str) -> None:
    """That every layer has the modules which the attention of ``patch`` calls, in the shapes of the config;
    hosted models call theirs themselves.

    Raises:
        ConfigError: names the first module that is missing or has another shape.
    """
    config: Any = model.config
    check_config(config, option)
    if family_of(config).hosted:
        return
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
    return any(getattr(config, name, 0) for name in EXPERTS)


def max_context(config: PreTrainedConfig) -> int:
    """Longest sequence, in tokens, on which the model is what it was trained to be.

    With yarn, the stretched context. With longrope, the one before stretching: beyond it all keys would have
    to be turned anew.
    """
    context: int = config.max_position_embeddings
    for rope in ropes(config):
        original = int(rope.get("original_max_position_embeddings", context))
        if rope.get("rope_type") == "yarn":
            context = max(context, int(original * rope["factor"]))
        elif rope.get("rope_type") in ("longrope", "dynamic"):
            context = min(context, original)
    return context
