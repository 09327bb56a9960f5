"""The mixers that there are, one row of traits each: how a layer mixes tokens, and what it keeps of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.models.layers import layer_range


@dataclass(frozen=True)
class Traits:
    """Of one mixer."""

    native: tuple[str, ...]
    """What transformers calls such a layer in ``layer_types``."""
    help: str
    """How it mixes tokens."""
    keeps: str
    """What it keeps of a sequence."""
    attention: str | None = None
    """``module:class`` of the ``engine.passes.Mixer`` that is its attention, over pages of K and V."""
    windowed: bool = False
    """Its attention reaches back ``sliding_window`` tokens only: the pages behind them are given back."""
    state: bool = False
    """Keeps a state of fixed size for each sequence: a recurrence, a convolution."""
    trained: bool = False
    """``pretrain`` makes models with it."""


MIXERS = {
    "attention": Traits(
        ("full_attention",),
        "attention to all tokens, or to the blocks that a selector picks",
        "K and V of all tokens",
        "seer_ray.engine.mixers.attention:PagedAttention",
        trained=True,
    ),
    "sliding": Traits(
        ("sliding_attention",),
        "attention to the last tokens",
        "K and V of its window",
        "seer_ray.engine.mixers.sliding:SlidingAttention",
        windowed=True,
        trained=True,
    ),
    "linear": Traits(
        ("linear_attention", "conv"),
        "a linear recurrence (Gated DeltaNet, Mamba-2) or a short convolution",
        "a state of fixed size",
        state=True,
    ),
    "parallel": Traits(
        ("hybrid",),
        "attention and a recurrence side by side",
        "K and V of all tokens, and a state",
        "seer_ray.engine.mixers.attention:PagedAttention",
        state=True,
    ),
    "none": Traits(("moe", "mlp"), "mixes no tokens", "nothing"),
}
"""By their names in options and plans."""
NATIVE = {native: name for name, traits in MIXERS.items() for native in traits.native}
"""Names in options by those of transformers."""


def layer_mixers(config: Any) -> list[str]:
    """The mixer of each layer of a checkpoint, by its Hugging Face config.

    Raises:
        ConfigError: a kind of layer that is not known.
    """
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        name = "sliding" if getattr(config, "sliding_window", None) else "attention"
        return [name] * config.num_hidden_layers
    if unknown := sorted(set(kinds) - NATIVE.keys()):
        raise ConfigError(
            f"model type {config.model_type}: layers of kind {', '.join(unknown)} are not supported; "
            f"supported are {', '.join(NATIVE)}"
        )
    return [NATIVE[kind] for kind in kinds]


def resolve_mixers(named: dict[str, str], layers: int) -> list[str]:
    """The mixer of every layer of a model that is to be trained, by name.

    Raises:
        ConfigError: an unknown mixer or layer.
    """
    known = [name for name, traits in MIXERS.items() if traits.trained]
    names = ["attention"] * layers
    for key, name in named.items():
        option = f"architecture.mixers.{key}={name}"
        if name not in known:
            raise ConfigError(f"{option}: must be one of {', '.join(known)}{did_you_mean(name, known)}")
        chosen = layer_range(key, layers, option)
        names[chosen.start : chosen.stop] = [name] * len(chosen)
    return names
