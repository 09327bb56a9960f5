"""What the layers of a model ask of a pass, whoever makes it: the engine, the fidelity check, training."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from seer_ray.kernels.append import Norms
from seer_ray.models.recurrence import Run


class Attention(NamedTuple):
    """Queries, keys and values of the packed tokens in a layer, before rotation."""

    q: torch.Tensor
    """``[tokens, q_heads, head_dim]``"""
    k: torch.Tensor
    """``[tokens, kv_heads, head_dim]``"""
    v: torch.Tensor
    """Likewise."""
    scale: float
    """Of the logits."""
    sinks: torch.Tensor | None = None
    """See ``kernels.attend``; given by models that have them."""
    norms: Norms | None = None
    """Of q and k, which are not normalised yet; given to steps that say that they do it (``normalises``)."""


class Step(Protocol):
    """One pass, as an attention module sees it."""

    def attend(self, layer: int, asked: Attention) -> torch.Tensor:
        """Append k and v, attend: ``[tokens, q_heads, head_dim]``."""
        ...


class HostedStep(Step, Protocol):
    """One pass, as a hosted model sees it: it knows positions and states."""

    @property
    def position(self) -> torch.Tensor:
        """Of the packed tokens, ``[tokens]``."""
        ...

    def recur(self, layer: int, hidden: torch.Tensor, run: Run) -> torch.Tensor:
        """What ``run`` makes of the packed tokens, ``hidden [tokens, hidden]``, sequence by sequence."""
        ...
