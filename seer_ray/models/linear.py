"""A model's linear layers by the kernels, several in one call, where nothing hangs on the modules' own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.activations import SiLUActivation

from seer_ray.kernels.linear import Weight, linear, mlp

GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
"""Parts of the gated MLP ``down(act(gate(x)) * up(x))``, and of no other in a supported architecture."""


def project(x: torch.Tensor, *layers: Any) -> list[torch.Tensor]:
    """What each layer makes of ``x``, ``[..., inputs]``, by ``kernels.linear`` where all are plain.

    Modules are called under autograd, and where one is of a subclass (LoRA, quantised) or has hooks.
    """
    weights = _weights(*layers)
    return linear(x, weights) if weights is not None else [layer(x) for layer in layers]


def feed_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    """``module(x)`` of an MLP, a gated one by ``kernels.mlp``; see ``project``."""
    parts = module._modules
    if parts.keys() == GATED and not module.training and not _called(module):
        act, weights = parts["act_fn"], _weights(parts["gate_proj"], parts["up_proj"], parts["down_proj"])
        if weights is not None and type(act) in (SiLUActivation, nn.SiLU) and not _called(act):
            return mlp(x, *weights)
    return module(x)


def _weights(*layers: Any) -> list[Weight] | None:
    """Those of plain layers; None if one is not, or under autograd."""
    if torch.is_grad_enabled():
        return None
    weights = []
    for layer in layers:
        if type(layer) is not nn.Linear or _called(layer):
            return None
        weight, bias = layer._parameters["weight"], layer._parameters["bias"]
        if type(weight) is not nn.Parameter:
            return None
        weights.append((weight, bias))
    return weights


def _called(module: Any) -> bool:
    """Whether something waits for calls of the module or has replaced what they do."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)
