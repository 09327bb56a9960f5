"""A small decoder of the Qwen3 kind, as transformers has it, with random weights."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import ArchitectureConfig
from seer_ray.models.mixers import MIXERS, resolve_mixers
from seer_ray.training.pretrain.initial import prepare_lookup


def make_model(config: ArchitectureConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen3ForCausalLM:
    """fp32 weights drawn from ``seed``; input and output embeddings are one.

    Args:
        config: sizes that ``check_sizes`` accepts.
    """
    settings = model_settings(config, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(settings)
        if config.initial == "lookup":
            prepare_lookup(model, config.rope_theta)
    # Greedy by default: its answers are right or wrong, not matters of taste.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model.float()


def model_settings(config: ArchitectureConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen3Config:
    """As transformers has them."""
    mixers = resolve_mixers(config.mixers, config.layers)
    windowed = any(MIXERS[name].windowed for name in mixers)
    return Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=True,
        use_sliding_window=windowed,
        sliding_window=config.window if windowed else None,
        layer_types=[MIXERS[name].native[0] for name in mixers],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def weights_of(config: ArchitectureConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many the model has; makes none."""
    with torch.device("meta"):
        return sum(
            weight.numel() for weight in Qwen3ForCausalLM(model_settings(config, tokenizer)).parameters()
        )


def check_sizes(config: ArchitectureConfig) -> None:
    """
    Raises:
        ConfigError: sizes that do not go together, an unknown mixer or layer.
    """
    for name, good, rule in (
        ("kv_heads", config.heads % config.kv_heads == 0, f"divide architecture.heads={config.heads}"),
        ("head_dim", config.head_dim % 2 == 0, "be even"),
    ):
        if not good:
            raise ConfigError(f"architecture.{name}={getattr(config, name)}: must {rule}")
    resolve_mixers(config.mixers, config.layers)
