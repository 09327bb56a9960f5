"""The model types that are supported, one row of traits each.

``ours``: the decoder is embedding, layers with q, k, v and o projections and perhaps a norm of each head's
q and k, rotate-half RoPE over the whole head, gated MLP, final norm, head; ``patch`` spells it out, with
norms and products of our own. Many relatives differ in one of these without a trace in their module names:
so a list, and a test of each against transformers.

All others are ``hosted``: their own layers run as they are, and hand over what mixes tokens. The mixed
model, which is trained here, does so by itself (``models.mixed``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.models.mixed.config import MODEL_TYPE as MIXED
from seer_ray.models.mixers import MIXERS
from seer_ray.models.plan import SELECTING


@dataclass(frozen=True)
class Family:
    """Of one model type."""

    hosted: bool = True
    layers: tuple[str, ...] = ("attention",)
    """Kinds that a checkpoint of it may have, of ``models.mixers``."""
    experts: bool = False
    """Layers may be mixtures of experts."""
    state: str = ""
    """Name of the module of a decoder layer that keeps a state; in other layers it may be another's."""
    multiplier: Callable[[Any], float] = lambda config: 1.0
    """Of the logits, by the config."""

    @property
    def runs(self) -> str:
        """How it runs, in a word."""
        return "hosted" if self.hosted else "ours"


_WINDOWS = ("attention", "sliding")
_LINEAR = ("attention", "linear")
_DELTA = "linear_attn"


def _scaled(config: Any) -> float:
    """Of Granite."""
    return 1 / config.logits_scaling


FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "seed_oss", "arcee"), Family(hosted=False)),
    **dict.fromkeys(("mistral", "qwen2", "qwen3"), Family(hosted=False, layers=_WINDOWS)),
    **dict.fromkeys(
        ("mixtral", "qwen2_moe", "qwen3_moe"), Family(hosted=False, layers=_WINDOWS, experts=True)
    ),
    **dict.fromkeys(("glm4", "olmo2"), Family()),
    **dict.fromkeys(
        ("exaone4", "gemma3_text", "ministral", "ministral3", "olmo3", "phi3", "smollm3"),
        Family(layers=_WINDOWS),
    ),
    "gpt_oss": Family(layers=_WINDOWS, experts=True),
    "minimax_m2": Family(experts=True),
    **dict.fromkeys(("olmo_hybrid", "qwen3_5_text"), Family(layers=_LINEAR, state=_DELTA)),
    **dict.fromkeys(("qwen3_next", "qwen3_5_moe_text"), Family(layers=_LINEAR, experts=True, state=_DELTA)),
    "granite": Family(multiplier=_scaled),
    "granitemoehybrid": Family(layers=_LINEAR, experts=True, state="mamba", multiplier=_scaled),
    "falcon_h1": Family(
        layers=("parallel",), state="mamba", multiplier=lambda config: config.lm_head_multiplier
    ),
    "lfm2": Family(layers=_LINEAR, state="conv"),
    "nemotron_h": Family(layers=(*_LINEAR, "none"), experts=True, state="mixer"),
    MIXED: Family(layers=tuple(name for name, traits in MIXERS.items() if traits.trained)),
}
"""By ``model_type``."""
OURS = tuple(name for name, family in FAMILIES.items() if not family.hosted)
TEXT_PARTS = {
    "gemma3": "gemma3_text",
    "mistral3": "ministral3",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""Model types of images and text, of which the text's part is decoded."""


def family_of(config: Any) -> Family:
    """Of a model's config.

    Raises:
        ConfigError: it is not supported; names those that are.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        known = sorted({*FAMILIES, *TEXT_PARTS})
        raise ConfigError(
            f"model type {kind} is not supported{did_you_mean(kind, known)}; supported are {', '.join(known)}"
        )
    return FAMILIES[kind]


def lacking(*, hosted: bool, layers: Collection[str]) -> list[str]:
    """What a model cannot do, of: ``tensor parallel``, ``selectors`` (no layer attends to all tokens, so
    there are no blocks to choose from).

    Args:
        hosted: see ``Family``.
        layers: their kinds.
    """
    cannot = {
        "tensor parallel": hosted,
        "selectors": not any(name in SELECTING for name in layers),
    }
    return [what for what, so in cannot.items() if so]
