"""RoPE of a GGUF file, from its keys and from ``rope_freqs.weight``, as transformers writes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from seer_ray.config.errors import ConfigError

FACTORS = "rope_freqs.weight"
"""Tensor by which each frequency is divided: how llama.cpp keeps the scaling of Llama 3."""
THETA = 10000.0
"""Of files that name no ``rope.freq_base``."""
SMOOTH = (1.0, 4.0)
"""``low_freq_factor`` and ``high_freq_factor`` of every Llama 3."""
NEAR = 1e-5
"""Relative difference of factors that are the same, in float32."""


def rope_of(
    take: Callable[..., Any],
    refuse: Callable[..., ConfigError],
    width: int,
    context: int,
    factors: Sequence[float] | None,
) -> dict[str, Any]:
    """``rope_parameters`` of the config.

    Args:
        take: (key, default) -> value, which is then accounted for.
        refuse: (key, value, reason) -> the error.
        width: channels that are turned.
        context: ``context_length``.
        factors: what ``rope_freqs.weight`` holds, if it is there.

    Raises:
        ConfigError: names a key or tensor that cannot be carried over.
    """
    theta = float(take("rope.freq_base") or THETA)
    kind = take("rope.scaling.type")
    factor = float(take("rope.scaling.factor") or take("rope.scale_linear") or 1.0)
    original = take("rope.scaling.original_context_length")
    take("rope.scale_linear"), take("rope.scaling.finetuned")  # the older name; says only who trained it
    if kind is None:
        kind = "linear"  # as llama.cpp does
    scaling: dict[str, Any] = {}
    if kind == "yarn":
        scaling = _yarn(take, refuse, factor, original or context)
    elif kind == "linear":
        scaling = {"factor": factor} if factor != 1.0 else {}
    elif kind != "none":
        raise refuse("rope.scaling.type", kind, "must be none, linear or yarn")
    if (attention := take("rope.scaling.attn_factor")) not in (None, 0.0, 1.0):
        # llama.cpp multiplies yarn's own factor by it; some converters write the whole factor here.
        raise refuse("rope.scaling.attn_factor", attention)
    parameters = {"rope_type": kind if scaling else "default", "rope_theta": theta, **scaling}
    if factors is None or all(abs(each - 1.0) <= NEAR for each in factors):
        return parameters
    if scaling:
        raise refuse("rope.scaling.type", kind, f"cannot be carried over together with the tensor {FACTORS}")
    if len(factors) != width // 2:
        raise ConfigError(f"{FACTORS}: has {len(factors)} factors, must have {width // 2}")
    return parameters | (_llama3(theta, width, context, factors) or _by_channel(context, factors))


def _yarn(
    take: Callable[..., Any], refuse: Callable[..., ConfigError], factor: float, original: int
) -> dict[str, Any]:
    if (extrapolation := take("rope.scaling.yarn_ext_factor", 1.0)) != 1.0:
        raise refuse("rope.scaling.yarn_ext_factor", extrapolation)
    if multiplier := take("rope.scaling.yarn_log_multiplier", 0.0):
        raise refuse("rope.scaling.yarn_log_multiplier", multiplier)
    found: dict[str, Any] = {"factor": factor, "original_max_position_embeddings": original}
    for key, name in (
        ("yarn_attn_factor", "attention_factor"),
        ("yarn_beta_fast", "beta_fast"),
        ("yarn_beta_slow", "beta_slow"),
    ):
        if value := take(f"rope.scaling.{key}"):
            found[name] = float(value)
    return found


def _llama3(theta: float, width: int, context: int, factors: Sequence[float]) -> dict[str, Any] | None:
    """The parameters from which Llama 3's factors were computed; None: they are others.

    Low and high are those of every release, the largest factor is the factor, and of the powers of two below
    the context one gives these very factors.
    """
    low, high = SMOOTH
    factor = round(max(factors), 4)
    waves = [2 * math.pi * theta ** (2 * channel / width) for channel in range(width // 2)]
    original = 2 ** int(math.log2(context))
    while original >= 2:
        shares = (min(1.0, max(0.0, (original / wave - low) / (high - low))) for wave in waves)
        made = [1.0 / ((1.0 - share) / factor + share) for share in shares]
        if all(abs(ours / theirs - 1.0) <= NEAR for ours, theirs in zip(made, factors, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
        original //= 2
    return None


def _by_channel(context: int, factors: Sequence[float]) -> dict[str, Any]:
    """The factors as they are: LongRoPE whose short and long factors are the same."""
    return {
        "rope_type": "longrope",
        "short_factor": list(factors),
        "long_factor": list(factors),
        "attention_factor": 1.0,
        "factor": 1.0,
        "original_max_position_embeddings": context,
    }
