"""A model's linear layers by the kernels, several in one call, where nothing hangs on the modules' own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.activations import SiLUActivation

from seer_ray.kernels.linear import Weight, gated, linear

GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
"""Parts of the gated MLP ``down(act(gate(x)) * up(x))``, and of no other in a supported architecture."""


def project(x: torch.Tensor, *layers: Any) -> list[torch.Tensor]:
    """What each layer makes of ``x``, ``[..., inputs]``, by ``kernels.linear`` where all are plain.

    Modules are called under autograd, and where one is of a subclass (LoRA, quantised) or has hooks.
    """
    if not torch.is_grad_enabled() and all(map(_plain, layers)):
        return linear(x, [_weight(layer) for layer in layers])
    return [layer(x) for layer in layers]


def feed_forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    """``mlp(x)``, a gated one by ``kernels.gated``; see ``project``."""
    if torch.is_grad_enabled() or not _gated(mlp):
        return mlp(x)
    inner = gated(x, _weight(mlp.gate_proj), _weight(mlp.up_proj))
    return project(inner, mlp.down_proj)[0]


def _gated(mlp: Any) -> bool:
    """Whether it is one with SiLU, its first two layers plain."""
    if mlp._modules.keys() != GATED or mlp.training or _called(mlp):
        return False
    silu = type(mlp.act_fn) in (SiLUActivation, nn.SiLU) and not _called(mlp.act_fn)
    return silu and _plain(mlp.gate_proj) and _plain(mlp.up_proj)


def _plain(layer: Any) -> bool:
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and not _called(layer)


def _called(module: Any) -> bool:
    """Whether something waits for calls of the module or has replaced what they do."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def _weight(layer: Any) -> Weight:
    return layer.weight, layer.bias
