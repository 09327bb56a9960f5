"""Which tensors the GGUF file of a family has: all of these, and no others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.models.gguf_rope import FACTORS

_DENSE = ("ffn_gate", "ffn_up", "ffn_down")
_EXPERTS = ("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
_SHARED = ("ffn_gate_inp_shexp", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
_NORMS = ("attn_norm", "ffn_norm")
_UNUSED = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")
"""Frequencies that old converters wrote, and that nothing reads."""


@dataclass(frozen=True)
class Family:
    """What transformers calls it, and what its layers have."""

    model_type: str
    architecture: str
    layer: tuple[str, ...]
    """Weights of each layer."""
    biased: tuple[str, ...] = ()
    """Those that always have a bias."""
    biases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Option of the config, and the weights that have a bias with it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What llama.cpp computes where no key says so."""


_ANY = ("attention_bias", _ATTENTION)
FAMILIES = {
    "llama": Family(
        "llama", "LlamaForCausalLM", _NORMS + _ATTENTION + _DENSE, biases=(_ANY, ("mlp_bias", _DENSE))
    ),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM", _NORMS + _ATTENTION + _DENSE, biased=_ATTENTION[:3]),
    "qwen2moe": Family(
        "qwen2_moe", "Qwen2MoeForCausalLM", _NORMS + _ATTENTION + _EXPERTS + _SHARED, biased=_ATTENTION[:3]
    ),
    "qwen3": Family(
        "qwen3",
        "Qwen3ForCausalLM",
        (*_NORMS, *_ATTENTION, "attn_q_norm", "attn_k_norm", *_DENSE),
        biases=(_ANY,),
    ),
    "qwen3moe": Family(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        (*_NORMS, *_ATTENTION, "attn_q_norm", "attn_k_norm", *_EXPERTS),
        biases=(_ANY,),
        settings={"norm_topk_prob": True},
    ),
}
"""By ``general.architecture``."""


def check_tensors(
    family: str, tensors: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the tensors say that no key does: tied embeddings and biases, as the config has them.

    Args:
        family: key of ``FAMILIES``.
        tensors: their shapes by name.
        settings: of the config, as far as they are known.

    Raises:
        ConfigError: names the first tensor that is missing, or that would not be read.
    """
    about, layers = FAMILIES[family], range(settings["num_hidden_layers"])
    found: dict[str, Any] = {"tie_word_embeddings": "output.weight" not in tensors}
    biased = about.biased
    for option, names in about.biases:
        found[option] = any(f"blk.0.{name}.bias" in tensors for name in names)
        biased += names if found[option] else ()
    expected = {"token_embd.weight", "output_norm.weight"}
    expected |= {f"blk.{layer}.{name}.weight" for layer in layers for name in about.layer}
    expected |= {f"blk.{layer}.{name}.bias" for layer in layers for name in biased}
    if missing := sorted(expected - tensors.keys()):
        raise ConfigError(f"{len(missing)} tensors are missing, first {missing[0]}")
    extra = tensors.keys() - expected - {"output.weight", FACTORS}
    if unread := sorted(name for name in extra if not _UNUSED.fullmatch(name)):
        raise ConfigError(f"{len(unread)} tensors cannot be carried over, first {unread[0]}")
    return found
