"""Tiny random models of every supported type: ``from families import FAMILY_NAMES, make_family``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import VOCABULARY, tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from seer_ray.models.families import FAMILIES, OURS
from seer_ray.models.mixed.config import know_model

FAMILY_NAMES = tuple(FAMILIES)
KINDS = ("qwen3_next", "falcon_h1", "gpt_oss", "gemma3_text", "glm4", "nemotron_h", "lfm2", "seer_mixed")
"""Of each kind of layer, state, rotation and output one."""

_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "sliding_window": 40,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 128,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
}
_MIXED = ["sliding_attention", "full_attention"] * 2
_LINEAR = ["linear_attention", "full_attention"] * 2
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 256}
_OWN: dict[str, dict[str, Any]] = {
    **{name: {"sliding_window": None} for name in OURS if name != "mistral"},
    "exaone4": {"layer_types": _MIXED},
    "falcon_h1": {"mamba_d_ssm": 128, "lm_head_multiplier": 2.0, "key_multiplier": 0.7},
    "gemma3_text": {"layer_types": _MIXED, "query_pre_attn_scalar": 16},
    "glm4": {"attention_bias": True},
    "gpt_oss": {"rope_parameters": _YARN | {"truncate": False}},
    "granite": {"logits_scaling": 0.5, "embedding_multiplier": 3.0, "residual_multiplier": 0.7},
    "granitemoehybrid": {"layer_types": _LINEAR, "position_embedding_type": "rope", "logits_scaling": 0.5},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3, "block_multiple_of": 16},
    "minimax_m2": {"rotary_dim": 8},
    "ministral3": {"rope_parameters": _YARN | {"llama_4_scaling_beta": 0.5}},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "ssm_state_size": 16,
        "n_groups": 2,
        "n_routed_experts": 4,
        "moe_shared_expert_intermediate_size": 32,
        # Where a step of time is shorter, transformers' prompts and steps are not the same recurrence.
        "time_step_min": 1e-9,
    },
    "olmo3": {"layer_types": _MIXED},
    "olmo_hybrid": {"layer_types": _LINEAR},
    "seer_mixed": {
        "mixers": ["approximate", "static", "gated_deltanet", "attention", "rndemb", "hgrn2"],
        "num_hidden_layers": 6,
        "conv": 3,
        "state_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    **{name: {"layer_types": _LINEAR} for name in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")},
    "smollm3": {"no_rope_layer_interval": 2},
}


def make_family(name: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random model of a type, float32, in eval mode, its layers of as many kinds as the type has."""
    kind = CONFIG_MAPPING[name]
    known = kind().to_dict()
    settings = {key: value for key, value in _BASE.items() if key in known or key == "num_hidden_layers"}
    config = kind(**settings | _OWN.get(name, {}) | overrides)
    know_model(config)
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "norm" in key or key.endswith(("A_log", "dt_bias", ".D")):
                    weight.add_(torch.empty_like(weight).uniform_(-0.3, 0.4))
                elif "sinks" in key:
                    weight.uniform_(-1, 3)
                elif key.endswith("conv.weight") and name == "seer_mixed":
                    weight.normal_(0.0, 0.5)
                else:
                    weight.normal_(0.0, 0.3 if weight.dim() > 1 else 0.5)
            for key, held in model.named_buffers():
                if key.endswith("fixedseq"):
                    held.random_(0, 256)
    finally:
        torch.random.set_rng_state(state)
    return model.eval().requires_grad_(False)


def save_family(folder: Path, name: str, **overrides: Any) -> Path:
    """``make_family`` with a tokenizer as a folder that ``from_pretrained`` loads without a network."""
    make_family(name, **overrides).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
