"""Initial weights from which a small model learns to look things up in minutes.

To copy what stands behind a label, one head must tell every token what stands before it, and a head of a
later layer must look for that: an induction head (Olsson et al. 2022, arXiv:2209.11895). Neither is of use
without the other, and from random weights the loss stays on a plateau until chance has made both. Here the
first layer begins with heads that look back by a fixed distance, and the other layers with queries that
resemble keys, as they do in trained models (Trockman and Kolter 2023, arXiv:2305.09828). Nothing of this is
held fixed in training.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

SHARED = 1.0
"""Part that all embeddings have in common, in units of the part of their own: queries and keys made of it do
not depend on the token."""
ALIKE = 0.7
"""Share of a query's weights that are its key's."""
FAST = 0.25
"""Share of the rotary frequencies, fastest first, that tell one distance from the next."""
SHARPNESS = 2.0
"""Of the first layer's scores, as the weight of its query norm."""
NOISE = 0.3
"""Random part of the weights of heads that look back, in units of what they would be otherwise."""


@torch.no_grad()
def prepare_lookup(model: Qwen3ForCausalLM, rope_theta: float) -> None:
    """Change random initial weights in place: query head h of the first layer looks h + 1 tokens back, and
    queries of the other layers resemble their keys. Draws from torch's generator.

    Args:
        rope_theta: base of the rotary embedding.
    """
    config = model.config
    width, spread = config.hidden_size, config.initializer_range
    half = config.head_dim // 2
    frequencies = rope_theta ** (-torch.arange(half) / half)
    shared = torch.randn(width)
    shared /= shared.norm()
    model.model.embed_tokens.weight.add_(SHARED * spread * width**0.5 * shared)
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        queries = attention.q_proj.weight.view(config.num_key_value_heads, -1, config.head_dim, width)
        keys = attention.k_proj.weight.view(config.num_key_value_heads, config.head_dim, width)
        if index:
            queries.lerp_(keys.unsqueeze(1), ALIKE)
            continue
        queries.mul_(NOISE)
        keys.mul_(NOISE)
        for group, (key, group_queries) in enumerate(zip(keys, queries, strict=True)):
            phases = torch.rand(half) * 2 * torch.pi
            key.add_(torch.outer(_turned(phases), shared))
            for head, query in enumerate(group_queries, group * len(group_queries)):
                query.add_(torch.outer(_turned(phases - (head + 1) * frequencies), shared))
        attention.q_norm.weight.fill_(SHARPNESS)


def _turned(phases: Tensor) -> Tensor:
    """A vector of these phases, ``[head_dim / 2]``: ``[head_dim]``, of length 1 in the fast frequencies and 0
    in the others. Less an angle that grows with the frequency it is the same vector further back."""
    pair = torch.stack([phases.cos(), phases.sin()])
    pair[:, max(1, round(FAST * len(phases))) :] = 0
    return pair.flatten()
