"""What the mixers of a mixed model are given beside the hidden states of a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from seer_ray.kernels.delta import convolve, convolve_step
from seer_ray.kernels.norm import rms_norm
from seer_ray.models.recurrence import Held, Slots
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import HostedStep

Rotary = tuple[Tensor, Tensor]
"""cos and sin of some positions, ``[tokens, dim]``."""


@dataclass
class Flow:
    """One pass."""

    step: HostedStep
    embedded: Tensor
    """What enters the first layer, ``[tokens, hidden]``."""
    ropes: dict[int, RopeTable]
    """By the channels that they turn."""
    maps: dict[int, tuple[Tensor, Tensor]] | None = None
    """q and k by position, ``[positions, heads, head_dim]``, of layers whose map of attention does not depend
    on the input; None: this pass makes them, see ``made``."""
    made: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _rotary: dict[int, Rotary] = field(default_factory=dict)

    def rotary(self, dim: int) -> Rotary:
        """Of the pass's tokens."""
        if dim not in self._rotary:
            self._rotary[dim] = self.ropes[dim].at(self.step.position)
        return self._rotary[dim]


class RMSNorm(nn.Module):
    """By ``kernels.norm``; over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class ShortConv(nn.Module):
    """``silu`` of a causal convolution of each channel, with the last inputs of each sequence as its state.

    Args:
        layer: that it is in.
        channels: of its input.
        kernel: tokens that it spans.
    """

    def __init__(self, layer: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.empty(channels, kernel))
        nn.init.uniform_(self.weight, -(kernel**-0.5), kernel**-0.5)

    def forward(self, x: Tensor, flow: Flow, some: slice = slice(None)) -> Tensor:
        """Like x, ``[tokens, channels]``; ``some`` of the channels, where x has only those."""
        return flow.step.recur(self.layer, x, partial(self._run, some))

    def _run(self, some: slice, x: Tensor, held: Held) -> Tensor:
        weight = self.weight[some]
        if isinstance(held, Slots) and x.shape[1] == 1:
            states = held.kept[0]
            assert states is not None
            return convolve_step(x.squeeze(1), states, held.slots, weight).unsqueeze(1)
        out, after = convolve(x, held.take()[0], weight)
        held.put((after, None))
        return out


def in_float32(run: Callable[[Any, Tensor, Held], Tensor]) -> Callable[[Any, Tensor, Held], Tensor]:
    """A method that goes on from states, whatever autocast says of products: states would lose digits."""

    @wraps(run)
    def wide(self: Any, x: Tensor, held: Held) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return run(self, x, held)

    return wide


def heads(x: Tensor, dim: int) -> Tensor:
    """``[tokens, heads * dim]`` -> ``[tokens, heads, dim]``."""
    return x.unflatten(-1, (-1, dim))


def in_slots(held: Held) -> tuple[Tensor, Tensor] | None:
    """The recurrent states of all slots of an engine, and the slots of these sequences; None: there are no
    slots."""
    if not isinstance(held, Slots):
        return None
    states = held.kept[1]
    assert states is not None
    return states, held.slots


Config = Any
"""A ``MixedConfig``, whose attributes transformers makes."""
