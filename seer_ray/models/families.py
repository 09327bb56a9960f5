"""The model types that are supported, one row of traits each.

``ours``: the decoder is embedding, layers with q, k, v and o projections and perhaps a norm of each head's q
and k, rotate-half RoPE over the whole head, gated MLP, final norm, head; ``patch`` spells it out, with our
own norms and products. Many relatives differ in one of these without a trace in their module names: so a
list, and a test of each against transformers.

All others are ``hosted``: their own layers run as they are, and hand over what mixes tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Family:
    """Of one model type."""

    hosted: bool = True
    state: str = ""
    """Name of the module of a decoder layer that keeps a state; in other layers it may be another's."""
    multiplier: Callable[[Any], float] = lambda config: 1.0
    """Of the logits, by the config."""


_OURS = Family(hosted=False)
_PLAIN = Family()
_DELTA = Family(state="linear_attn")
_GRANITE = {"multiplier": lambda config: 1 / config.logits_scaling}

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "arcee"),
        _OURS,
    ),
    **dict.fromkeys(
        (
            "exaone4",
            "gemma3_text",
            "glm4",
            "gpt_oss",
            "minimax_m2",
            "ministral",
            "ministral3",
            "olmo2",
            "olmo3",
            "phi3",
            "smollm3",
        ),
        _PLAIN,
    ),
    **dict.fromkeys(("olmo_hybrid", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _DELTA),
    "granite": Family(**_GRANITE),
    "granitemoehybrid": Family(state="mamba", **_GRANITE),
    "falcon_h1": Family(state="mamba", multiplier=lambda config: config.lm_head_multiplier),
    "lfm2": Family(state="conv"),
    "nemotron_h": Family(state="mixer"),
}
"""By ``model_type``."""
OURS = tuple(name for name, family in FAMILIES.items() if not family.hosted)
TEXT_PARTS = {"gemma3": "gemma3_text", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text"}
"""Model types of images and text, of which the text's part is decoded."""


def family_of(config: Any) -> Family:
    """Of a model's config.

    Raises:
        ConfigError: it is not supported; names those that are.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        known = sorted({*FAMILIES, *TEXT_PARTS} - {*TEXT_PARTS.values()})
        raise ConfigError(
            f"model type {kind} is not supported{did_you_mean(kind, known)}; supported are {', '.join(known)}"
        )
    return FAMILIES[kind]
