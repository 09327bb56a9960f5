"""Which models can be decoded, and how far they reach."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.models.families import family_of
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.rope import head_dim, rope_parameters, ropes

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""What configs call their number."""
_SHIFTING = ("longrope", "dynamic")
"""RoPE whose frequencies change once a sequence is longer than the original context."""


def check_config(config: PreTrainedConfig, option: str) -> None:
    """That the model is of a supported type, with layers that are.

    Raises:
        ConfigError: says what is not.
    """
    try:
        family, mixers = family_of(config), layer_mixers(config)
        if other := sorted({*mixers} - {*family.layers}):
            raise ConfigError(
                f"model type {config.model_type}: with layers of kind {other[0]} it is not supported"
            )
        if not family.hosted:
            rope_parameters(config)
        elif getattr(config, "attn_logit_softcapping", None):
            raise ConfigError(f"model type {config.model_type}: attn_logit_softcapping is not supported")
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


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
    kinds = {*(getattr(config, "layer_types", None) or ())}
    if {"moe", "mlp"} & kinds:  # configs of Nemotron-H name a number of experts though no layer has any
        return "moe" in kinds
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
        elif rope.get("rope_type") in _SHIFTING:
            context = min(context, original)
    return context


def check_length(config: PreTrainedConfig, length: int | None) -> None:
    """That sequences may be so long, in tokens; None: as long as the model's context.

    Raises:
        ConfigError: they may not.
    """
    context = max_context(config)
    if length is not None and length > context:
        raise ConfigError(
            f"engine.max_length={length}: the model's context is {context} tokens{_stretched(config)}"
        )


def _stretched(config: PreTrainedConfig) -> str:
    """Why that is shorter than its config says."""
    kinds = [rope.get("rope_type") for rope in ropes(config) if rope.get("rope_type") in _SHIFTING]
    return f"; beyond, its rope_type={kinds[0]} turns all keys anew, which is not supported" if kinds else ""
