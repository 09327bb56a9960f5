"""A small decoder with random weights: of the Qwen3 kind, as transformers has it, or a mixed one of ours."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import ArchitectureConfig, MixerPlanConfig
from seer_ray.models.layout import lay_mixers
from seer_ray.models.mixed.config import MixedConfig
from seer_ray.models.mixed.model import MixedForCausalLM, MixedLayer
from seer_ray.models.mixed.sizes import TOLERANCE, value_dim
from seer_ray.models.mixers import MIXERS, resolve_mixers
from seer_ray.training.pretrain.initial import prepare_lookup


def make_model(
    config: ArchitectureConfig,
    plan: MixerPlanConfig,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    text: torch.Tensor | None = None,
) -> PreTrainedModel:
    """fp32 weights drawn from ``seed``; input and output embeddings are one.

    Args:
        config: sizes that ``check_sizes`` accepts.
        plan: of the mixers.
        tokenizer: of the model.
        seed: of the weights.
        text: tokens of the fixed text that ``fixedseq`` layers look at, over and over.
    """
    settings = model_settings(config, plan, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _kind(settings)(settings)
        if config.initial == "lookup" and isinstance(model, Qwen3ForCausalLM):
            prepare_lookup(model, config.rope_theta)
    if isinstance(model, MixedForCausalLM) and "fixedseq" in settings.mixers and text is not None:
        model.model.fixedseq.copy_(text.repeat(-(-config.max_positions // len(text)))[: config.max_positions])
    # Greedy by default: its answers are right or wrong, not matters of taste.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model.float()


def model_settings(
    config: ArchitectureConfig, plan: MixerPlanConfig, tokenizer: PreTrainedTokenizerBase
) -> Any:
    """As transformers has them: of Qwen3 where that has the mixers, else of a mixed model."""
    mixers = mixers_of(config, plan)
    windowed = any(MIXERS[name].windowed for name in mixers)
    common: dict[str, Any] = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": True,
        "sliding_window": config.window if windowed else None,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if all(MIXERS[name].native for name in mixers) and not config.conv and config.qk_norm:
        kinds = [MIXERS[name].native[0] for name in mixers]
        return Qwen3Config(**common, use_sliding_window=windowed, layer_types=kinds)
    return MixedConfig(
        **common,
        mixers=mixers,
        conv=config.conv,
        qk_norm=config.qk_norm,
        state_dim=config.state_dim or config.head_dim // 2,
    )


def mixers_of(config: ArchitectureConfig, plan: MixerPlanConfig) -> list[str]:
    """Of each layer, by name.

    Raises:
        ConfigError: an unknown mixer or layer, or a layout that the layers cannot have.
    """
    return resolve_mixers(config.mixers, config.layers, lay_mixers(plan, config.layers))


def relaxed_layers(config: ArchitectureConfig, plan: MixerPlanConfig) -> list[int]:
    """Layers without attention to single tokens, of a model that also has some with it; else none."""
    relaxed = [i for i, name in enumerate(mixers_of(config, plan)) if not MIXERS[name].anchor]
    return relaxed if len(relaxed) < config.layers else []


def weights_of(config: ArchitectureConfig, plan: MixerPlanConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many the model has; makes none."""
    settings = model_settings(config, plan, tokenizer)
    with torch.device("meta"):
        return sum(weight.numel() for weight in _kind(settings)(settings).parameters())


def check_sizes(config: ArchitectureConfig, plan: MixerPlanConfig) -> None:
    """
    Raises:
        ConfigError: sizes that do not go together, an unknown mixer or layer, a mixer that these sizes cannot
            have with as many weights as attention.
    """
    state_dim = config.state_dim or config.head_dim // 2
    mixers = mixers_of(config, plan)
    rotated = "retnet" in mixers
    for name, good, rule in (
        ("kv_heads", config.heads % config.kv_heads == 0, f"divide architecture.heads={config.heads}"),
        ("head_dim", config.head_dim % 2 == 0, "be even"),
        ("state_dim", not rotated or state_dim % 2 == 0, f"be even, here it is {state_dim}"),
    ):
        if not good:
            raise ConfigError(f"architecture.{name}={getattr(config, name)}: must {rule}")
    wanted = _layer_weights(config, "attention", state_dim)
    for name in sorted({*mixers}):
        settings = _one_layer(config, name, state_dim)
        narrow = name in ("retnet", "gla", "hgrn2", "deltanet", "gated_deltanet")
        if narrow and value_dim(settings, name) < 1:
            raise ConfigError(
                f"architecture.state_dim={state_dim}: leaves {name} no weights for values, where it has as "
                "many as attention; lower it"
            )
        differs = _layer_weights(config, name, state_dim) / wanted - 1
        if abs(differs) > TOLERANCE:
            raise ConfigError(
                f"architecture.hidden_size={config.hidden_size}: a layer of {name} would have {differs:+.1%} "
                f"of the weights of one with attention, more than {TOLERANCE:.0%} apart; take fewer heads or "
                "a larger hidden_size"
            )


def _kind(settings: PreTrainedConfig) -> Any:
    return MixedForCausalLM if isinstance(settings, MixedConfig) else Qwen3ForCausalLM


def _one_layer(config: ArchitectureConfig, name: str, state_dim: int) -> Any:
    return MixedConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=1,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        mixers=[name],
        conv=config.conv,
        qk_norm=config.qk_norm,
        state_dim=state_dim,
    )


def _layer_weights(config: ArchitectureConfig, name: str, state_dim: int) -> int:
    with torch.device("meta"):
        layer = MixedLayer(_one_layer(config, name, state_dim), 0)
    return sum(weight.numel() for weight in layer.parameters())
