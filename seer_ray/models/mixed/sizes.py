"""Inner widths such that every mixer has as many weights as attention, so that models compare."""

from __future__ import annotations

from typing import Any

GLA_RANK = 16
"""Of the matrix that makes GLA's decays."""
TOLERANCE = 0.01
"""Of a layer's weights, mixer and MLP together, by which layers may differ."""


def attention_weights(config: Any) -> int:
    """Weights of an attention mixer."""
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    norms = 2 * config.head_dim * config.qk_norm
    return config.hidden_size * 2 * (queries + keys) + norms + config.conv * (queries + 2 * keys)


def mlp_width(config: Any) -> int:
    """Of ``mlp``: gate, up and down, and a convolution of gate and up."""
    return round(attention_weights(config) / (3 * config.hidden_size + 2 * config.conv))


def vector_width(config: Any) -> int:
    """Of ``hgrn``: forget gate, input, output gate and output, its norm, a convolution of the input."""
    return round(attention_weights(config) / (4 * config.hidden_size + 1 + config.conv))


def value_dim(config: Any, kind: str) -> int:
    """Channels of a value of one head of an outer product; below 1 where there is no room for any."""
    heads, keys, width = (
        config.num_attention_heads,
        config.num_attention_heads * config.state_dim,
        config.hidden_size,
    )
    fixed = 2 * keys * width + config.conv * keys * (1 if kind == "hgrn2" else 2)
    if kind == "gla":
        fixed += GLA_RANK * width + (GLA_RANK + 1) * keys
    if kind in ("deltanet", "gated_deltanet"):
        fixed += width * heads
    if kind == "gated_deltanet":
        fixed += width * heads + 2 * heads
    # Of each channel: v, gate and output in every head, the norm once, a convolution.
    each = heads * (3 * width + config.conv) + 1
    return round((attention_weights(config) - fixed) / each)
