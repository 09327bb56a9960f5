"""A model's linear layers by the kernels, several in one call, where nothing hangs on the modules' own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.activations import SiLUActivation

from seer_ray.kernels import gpu
from seer_ray.kernels.projection import Weight, join, joint, mlp, projections
from seer_ray.models.group import Group

GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
"""Parts of the gated MLP ``down(act(gate(x)) * up(x))``, and of no other in a supported architecture."""


class RowParallel(nn.Linear):
    """A rank's input channels of a linear layer; the ranks' products are summed.

    Args:
        part: the layer, with the channels of this rank.
        group: the ranks.
    """

    def __init__(self, part: nn.Linear, group: Group) -> None:
        nn.Module.__init__(self)
        self.group = group
        self.in_features, self.out_features = part.in_features, part.out_features
        self.weight = part.weight
        self.register_parameter("bias", part.bias if group.rank == 0 else None)  # added once

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.group.total(super().forward(x))


def project(x: torch.Tensor, *layers: Any) -> list[torch.Tensor]:
    """What each layer makes of ``x``, ``[..., inputs]``, by ``kernels.projections`` where all are plain.

    Modules are called under autograd, and where one is of a subclass (LoRA, quantised) or has hooks.
    """
    weights = _weights(*layers)
    if weights is None:
        return [layer(x) for layer in layers]
    return [_whole(layer, y) for layer, y in zip(layers, projections(x, weights), strict=True)]


def feed_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    """``module(x)`` of an MLP, a gated one by ``kernels.mlp``; see ``project``."""
    parts = module._modules
    if parts.keys() == GATED and not module.training and not _called(module):
        act, weights = parts["act_fn"], _weights(parts["gate_proj"], parts["up_proj"], parts["down_proj"])
        if weights is not None and type(act) in (SiLUActivation, nn.SiLU) and not _called(act):
            return _whole(parts["down_proj"], mlp(x, *weights))
    return module(x)


def join_products(layer: Any) -> None:
    """Makes q, k and v of a decoder layer parts of one weight, gate and up of another: a GPU multiplies with
    each at once. Idempotent; modules, names and values stay."""
    attention, inner = layer.self_attn, layer.mlp._modules
    together = [[attention.q_proj, attention.k_proj, attention.v_proj]]
    if inner.keys() == GATED:
        together.append([inner["gate_proj"], inner["up_proj"]])
    for modules in together:
        with torch.no_grad():
            weights = _weights(*modules)
        if weights is None or not gpu.takes(weights[0][0]) or joint(weights) is not None:
            continue
        for module, (weight, bias) in zip(modules, join([(w.data, b) for w, b in weights]), strict=True):
            module.weight.data = weight
            if bias is not None:
                module.bias.data = bias.data


def _whole(layer: Any, y: torch.Tensor) -> torch.Tensor:
    """The output of a layer, of which this rank has computed ``y``."""
    return layer.group.total(y) if type(layer) is RowParallel else y


def _weights(*layers: Any) -> list[Weight] | None:
    """Those of plain layers; None if one is not, or under autograd."""
    if torch.is_grad_enabled():
        return None
    weights: list[Weight] = []
    for layer in layers:
        if type(layer) not in (nn.Linear, RowParallel) or _called(layer):
            return None
        weight, bias = layer._parameters["weight"], layer._parameters["bias"]
        if type(weight) is not nn.Parameter:
            return None
        weights.append((weight, bias))
    return weights


def _called(module: Any) -> bool:
    """Whether something waits for calls of the module or has replaced what they do."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)
