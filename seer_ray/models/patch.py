"""A Hugging Face model whose attention asks the engine instead of a contiguous cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from seer_ray.kernels import gpu
from seer_ray.kernels.append import Norms
from seer_ray.kernels.norm import add_norm, rms_norm
from seer_ray.models.families import family_of
from seer_ray.models.group import ALONE, Group
from seer_ray.models.hosted import host
from seer_ray.models.mixers import MIXERS, layer_mixers
from seer_ray.models.plan import SELECTING
from seer_ray.models.projection import feed_forward, join_products, project
from seer_ray.models.recurrence import States
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention, HostedStep, Step


def patch_attention(model: PreTrainedModel) -> None:
    """Give every module of ``model`` that mixes tokens a forward that asks the engine. Idempotent; weights
    and names stay.

    Outside of the engine's passes the modules still do what they did, so ``model.generate`` works.

    Raises:
        ConfigError: a layer turns its queries in a way that is not known.
    """
    if family_of(model.config).hosted:
        host(model)
        return
    decoder: Any = model.model
    for layer in decoder.layers:
        attention = layer.self_attn
        join_products(layer)
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
    norms = None
    if hasattr(attention, "q_norm"):
        if gpu.takes(q) and getattr(step, "normalises", False):
            norms = Norms(attention.q_norm.weight, attention.k_norm.weight, attention.q_norm.variance_epsilon)
        else:
            q, k = _norm(attention.q_norm, q), _norm(attention.k_norm, k)
    out = step.attend(attention.layer_idx, Attention(q, k, v, attention.scaling, norms=norms))
    return project(out.reshape(*lead, -1), attention.o_proj)[0], None


def forward_tokens(model: Any, tokens: torch.Tensor, step: Step) -> torch.Tensor:
    """Packed tokens through the decoder stack.

    Args:
        model: a patched causal language model.
        tokens: ``[tokens]``.
        step: where attention reads and writes; a ``HostedStep`` for a hosted model.

    Returns:
        Normalised hidden states, ``[tokens, hidden]``.
    """
    if family_of(model.config).hosted:
        return host(model).hidden(tokens, cast(HostedStep, step))
    hidden, delta = _layers(model, embed(model, tokens), step, range(len(model.model.layers)))
    return _add_norm(model.model.norm, hidden, delta)[1].squeeze(0)


def embed(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What enters the first layer of a patched model, ``[1, tokens, hidden]``."""
    if family_of(model.config).hosted:
        return host(model).embed(tokens)
    return model.model.embed_tokens(tokens).unsqueeze(0)


def run_layers(model: Any, hidden: torch.Tensor, step: Step, some: range) -> torch.Tensor:
    """Hidden states ``[1, tokens, hidden]`` through some layers; see ``forward_tokens``."""
    if family_of(model.config).hosted:
        return host(model).layers(hidden, cast(HostedStep, step), some)
    hidden, delta = _layers(model, hidden, step, some)
    return hidden if delta is None else hidden + delta


def normalise(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What leaves the last layer, ``[1, tokens, hidden]``, after the final norm: ``[tokens, hidden]``."""
    if family_of(model.config).hosted:
        return host(model).normalise(hidden).squeeze(0)
    return _norm(model.model.norm, hidden).squeeze(0)


def output_projection(model: Any, layer: int) -> Any:
    """The linear layer that takes the attention of a layer to its hidden size."""
    if family_of(model.config).hosted:
        return host(model).outputs[layer]
    return model.model.layers[layer].self_attn.o_proj


def _layers(
    model: Any, hidden: torch.Tensor, step: Step, some: range
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The decoder layers of every architecture that is ours, spelled out for our own norm and products: what
    leaves them is the sum of both. A sum is left to the norm behind it."""
    delta: torch.Tensor | None = None
    for layer in model.model.layers[some.start : some.stop]:
        hidden, normal = _add_norm(layer.input_layernorm, hidden, delta)
        attended, _ = layer.self_attn(normal, step=step)
        hidden, normal = _add_norm(layer.post_attention_layernorm, hidden, attended)
        delta = feed_forward(layer.mlp, normal)
    return hidden, delta


def logits_of(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Of the next token, from normalised hidden states ``[..., hidden]``: ``[..., vocabulary]``."""
    (logits,) = project(hidden, model.lm_head)
    multiplier = family_of(model.config).multiplier(model.config)
    if multiplier != 1.0:
        logits = logits * multiplier
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def rope_tables(model: Any, positions: int) -> list[RopeTable]:
    """Of each layer of a patched model, on its device; layers that are turned alike share one."""
    if not family_of(model.config).hosted:
        device = next(model.parameters()).device
        return [RopeTable.from_config(model.config, positions).to(device)] * model.config.num_hidden_layers
    return host(model).ropes(positions)


def _add_norm(module: Any, x: torch.Tensor, delta: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    return add_norm(x, delta, module.weight, module.variance_epsilon)


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
    window: int | None = None
    """Tokens that layers with a window look back, their own included."""
    states: tuple[States | None, ...] = ()
    """What each layer keeps of one sequence beside K and V: see ``models.recurrence``. Empty: none does."""

    def attending(self) -> list[int]:
        """Layers with attention."""
        return [layer for layer, name in enumerate(self.mixers) if MIXERS[name].attention is not None]

    def selecting(self) -> list[int]:
        """Those of which a selector may pick the blocks."""
        return [layer for layer, name in enumerate(self.mixers) if name in SELECTING]

    def reach(self, layer: int) -> int | None:
        """Tokens that a layer's attention looks back, the current one included; None: all."""
        return self.window if MIXERS[self.mixers[layer]].windowed else None


def attention_shape(model: Any, group: Group = ALONE) -> AttentionShape:
    """What cache and selectors must know of a patched model."""
    config = model.config
    mixers = tuple(layer_mixers(config))
    window = config.sliding_window if any(MIXERS[name].windowed for name in mixers) else None
    if family_of(config).hosted:
        hosting = host(model)
        states = tuple(hosting.states) if any(s is not None for s in hosting.states) else ()
        return AttentionShape(len(mixers), *hosting.heads, mixers, group, window, states)
    return AttentionShape(
        layers=config.num_hidden_layers,
        q_heads=config.num_attention_heads // group.size,
        kv_heads=config.num_key_value_heads // group.size,
        head_dim=model.model.layers[0].self_attn.head_dim,
        mixers=mixers,
        group=group,
        window=window,
    )
