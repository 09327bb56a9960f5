"""Tiny models as GGUF files, as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PAD, make_tiny, tiny_config, tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2MoeConfig, Qwen3MoeConfig

ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def model_of(family: str, **settings: Any) -> Any:
    """A random model of a family of ``ARCHITECTURES``; ``settings`` of its config win."""
    if family in ("llama", "qwen2", "qwen3"):
        return make_tiny(family, **settings)
    kind = Qwen2MoeConfig if family == "qwen2_moe" else Qwen3MoeConfig
    common = {
        k: v for k, v in tiny_config("qwen3").to_dict().items() if k not in ("model_type", "architectures")
    }
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    }
    if family == "qwen2_moe":
        experts |= {"shared_expert_intermediate_size": 48, "norm_topk_prob": False}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(kind(**(common | experts | settings)), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, 0.2)
    return model.eval()


def write_gguf(
    file: Path,
    model: PreTrainedModel,
    keys: Mapping[str, Any] = {},
    tensors: Mapping[str, Tensor | None] = {},
) -> Path:
    """A model with a byte-level tokenizer.

    Args:
        file: to be written.
        model: of a family of ``ARCHITECTURES``.
        keys: of the family, more or others; None: left out.
        tensors: likewise.
    """
    gguf = pytest.importorskip("gguf")
    config: Any = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in (_keys(config) | keys).items():
        if value is not None:
            _add(writer, f"{architecture}.{key}", value)
    tokenizer = tiny_tokenizer()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(config.vocab_size)))
    writer.add_token_types([1] * 256 + [3] * 4)
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_bos_token_id(PAD)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, tensor in (_tensors(model) | tensors).items():
        if tensor is not None:
            writer.add_tensor(name, tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def llama3_factors(config: Any, factor: float, low: float, high: float, original: int) -> Tensor:
    """What llama.cpp's converter puts into ``rope_freqs.weight``."""
    theta = config.rope_parameters["rope_theta"]
    freqs = 1.0 / theta ** (torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim)
    factors = []
    for freq in freqs:
        wave = 2 * torch.pi / freq.item()
        if wave < original / high:
            factors.append(1.0)
        elif wave > original / low:
            factors.append(factor)
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors)


def _keys(config: Any) -> dict[str, Any]:
    keys = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "vocab_size": config.vocab_size,
    }
    if hasattr(config, "num_experts"):
        keys |= {
            "expert_count": config.num_experts,
            "expert_used_count": config.num_experts_per_tok,
            "expert_feed_forward_length": config.moe_intermediate_size,
        }
    if hasattr(config, "shared_expert_intermediate_size"):
        keys["expert_shared_feed_forward_length"] = config.shared_expert_intermediate_size
    return keys


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    config: Any = model.config
    found: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        prefix = ""
        if name.startswith("model.layers."):
            _, _, layer, name = name.split(".", 3)
            prefix = f"blk.{layer}."
        if name.startswith("mlp.experts."):
            halves = weight.chunk(2, dim=1) if "gate_up" in name else (weight,)
            kinds = ("gate", "up") if "gate_up" in name else ("down",)
            found |= {
                f"{prefix}ffn_{kind}_exps.weight": half for kind, half in zip(kinds, halves, strict=True)
            }
            continue
        stem, kind = name.rsplit(".", 1)
        if config.model_type == "llama" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config.num_attention_heads if "q_proj" in stem else config.num_key_value_heads
            weight = _interleaved(weight, heads)
        if stem == "mlp.shared_expert_gate":
            weight = weight.squeeze(0)
        if not (stem == "lm_head" and config.tie_word_embeddings):
            found[f"{prefix}{NAMES[stem]}.{kind}"] = weight.contiguous()
    return found


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of q and k as llama.cpp keeps those of Llama: the two halves of each head interleaved."""
    return weight.view(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
