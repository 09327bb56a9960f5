"""The mixers that there are, one row of traits each: how a layer mixes tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.models.plan import layer_range


@dataclass(frozen=True)
class Traits:
    """Of one mixer."""

    native: str
    """What transformers calls such a layer in ``layer_types``."""
    implementation: str
    """``module:class`` of an ``engine.passes.Mixer``."""
    windowed: bool = False
    """Reaches back ``sliding_window`` tokens only. The engine computes it up to there, as full attention."""


MIXERS = {
    "attention": Traits("full_attention", "seer_ray.engine.mixers.attention:PagedAttention"),
    "sliding": Traits("sliding_attention", "seer_ray.engine.mixers.attention:PagedAttention", windowed=True),
}
"""By their names in options."""
NATIVE = {traits.native: name for name, traits in MIXERS.items()}
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
    """The mixer of every layer, by name.

    Raises:
        ConfigError: an unknown mixer or layer.
    """
    names = ["attention"] * layers
    for key, name in named.items():
        option = f"architecture.mixers.{key}={name}"
        if name not in MIXERS:
            raise ConfigError(f"{option}: must be one of {', '.join(MIXERS)}{did_you_mean(name, MIXERS)}")
        chosen = layer_range(key, layers, option)
        names[chosen.start : chosen.stop] = [name] * len(chosen)
    return names
