"""Mixers: how a layer mixes tokens."""

from __future__ import annotations

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.models.plan import layer_range

NATIVE = {"attention": "full_attention", "sliding": "sliding_attention"}
"""Mixers by name, with what transformers calls such a layer."""


def resolve_mixers(named: dict[str, str], layers: int) -> list[str]:
    """The mixer of every layer, by name.

    Raises:
        ConfigError: an unknown mixer or layer.
    """
    names = ["attention"] * layers
    for key, name in named.items():
        option = f"architecture.mixers.{key}={name}"
        if name not in NATIVE:
            raise ConfigError(f"{option}: must be one of {', '.join(NATIVE)}{did_you_mean(name, NATIVE)}")
        chosen = layer_range(key, layers, option)
        names[chosen.start : chosen.stop] = [name] * len(chosen)
    return names
