"""A Hugging Face model whose attention asks the engine instead of a contiguous cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from seer_ray.kernels.norm import rms_norm
from seer_ray.models.group import ALONE, Group
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.projection import feed_forward, project


class Step(Protocol):
    """One forward pass of the engine, as an attention module sees it."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Append k and v, attend.

        Args:
            layer: index of the decoder layer.
            q: normalised, before rotation, ``[tokens, q_heads, head_dim]``.
            k, v: likewise, ``[tokens, kv_heads, head_dim]``.
            scale: of the logits.

        Returns:
            ``[tokens, q_heads, head_dim]``.
        """
        ...


def patch_attention(model: PreTrainedModel) -> None:
    """Give every attention module of ``model`` the paged forward. Idempotent; weights and names stay.

    Without a ``step`` argument the module still does what it did, so ``model.generate`` works.
    """
    decoder: Any = model.model
    for layer in decoder.layers:
        attention = layer.self_attn
        if getattr(attention.forward, "func", None) is not _forward:
            attention.forward = partial(_forward, attention, attention.forward)


def _forward(
    attention: Any,
    original: Any,
    hidden_states: torch.Tensor,
    *args: Any,
    step: Step | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The one attention of Llama, Qwen2, Qwen3, Mistral and kin: bias and q/k norm where they have them."""
    if step is None:
        return original(hidden_states, *args, **kwargs)
    lead = hidden_states.shape[:-1]
    projections = project(hidden_states, attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (part.view(lead.numel(), -1, attention.head_dim) for part in projections)
    if hasattr(attention, "q_norm"):
        q, k = _norm(attention.q_norm, q), _norm(attention.k_norm, k)
    out = step.attend(attention.layer_idx, q, k, v, attention.scaling)
    return project(out.reshape(*lead, -1), attention.o_proj)[0], None


def forward_tokens(model: Any, tokens: torch.Tensor, step: Step) -> torch.Tensor:
    """Packed tokens through the decoder stack.

    Args:
        model: a patched causal language model.
        tokens: ``[tokens]``.
        step: where attention reads and writes.

    Returns:
        Normalised hidden states, ``[tokens, hidden]``.
    """
    return forward_hidden(model, model.model.embed_tokens(tokens).unsqueeze(0), step)


def forward_hidden(model: Any, hidden: torch.Tensor, step: Step, first: int = 0) -> torch.Tensor:
    """``forward_tokens`` from the layer ``first`` on, which ``hidden [1, tokens, hidden]`` enters."""
    for layer in model.model.layers[first:]:
        hidden = decoder_layer(layer, hidden, step)
    return _norm(model.model.norm, hidden).squeeze(0)


def decoder_layer(layer: Any, hidden: torch.Tensor, step: Step) -> torch.Tensor:
    """One layer of a patched model, ``hidden [1, tokens, hidden]``.

    That of every supported architecture, spelled out for our own norm and products.
    """
    attended, _ = layer.self_attn(_norm(layer.input_layernorm, hidden), step=step)
    hidden = hidden + attended
    return hidden + feed_forward(layer.mlp, _norm(layer.post_attention_layernorm, hidden))


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, module.weight, module.variance_epsilon)


@dataclass(frozen=True)
class AttentionShape:
    """Heads are those of this rank."""

    layers: int
    q_heads: int
    kv_heads: int
    head_dim: int
    mixers: tuple[str, ...]
    """How each layer mixes tokens, of ``models.mixers``."""
    group: Group = ALONE
    """The ranks among which the model's heads are divided, in order."""


def attention_shape(model: Any, group: Group = ALONE) -> AttentionShape:
    """What cache and selectors must know of a model."""
    config = model.config
    return AttentionShape(
        layers=config.num_hidden_layers,
        q_heads=config.num_attention_heads // group.size,
        kv_heads=config.num_key_value_heads // group.size,
        head_dim=model.model.layers[0].self_attn.head_dim,
        mixers=tuple(layer_mixers(config)),
        group=group,
    )
