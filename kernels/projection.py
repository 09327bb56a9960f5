"""Products of few rows with weights: what a decode step does outside attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import linear as product
from torch.nn.functional import silu

from seer_ray.kernels import cpu

Weight = tuple[torch.Tensor, torch.Tensor | None]
"""Weight ``[outputs, inputs]`` and bias ``[outputs]``."""


def projections(x: torch.Tensor, weights: Sequence[Weight]) -> list[torch.Tensor]:
    """``x W^T + b`` for several weights that read the same rows, such as those of q, k and v.

    Up to ``cpu.MAX_ROWS`` rows on a CPU are multiplied by compiled C++, sums in fp32, rounded once. A row's
    bits then depend neither on its batch mates and its place among them nor on the number of threads.

    Args:
        x: ``[..., inputs]``.
        weights: of the dtype of ``x``.

    Returns:
        For each weight ``[..., outputs]``, dtype of ``x``.
    """
    if cpu.takes_projections(x, weights):
        return cpu.projections(x, weights)
    return reference(x, weights)


def mlp(x: torch.Tensor, gate: Weight, up: Weight, down: Weight) -> torch.Tensor:
    """The gated MLP ``down(silu(gate(x)) * up(x))``; see ``projections``.

    Args:
        x: ``[..., inputs]``.
        gate, up: to the inner width.
        down: from there.

    Returns:
        ``[..., outputs]``, dtype of ``x``.
    """
    if cpu.takes_projections(x, (gate, up, down)):
        return cpu.mlp(x, gate, up, down)
    return reference_mlp(x, gate, up, down)


def reference(x: torch.Tensor, weights: Sequence[Weight]) -> list[torch.Tensor]:
    """The definition of ``projections`` in torch."""
    return [product(x, weight, bias) for weight, bias in weights]


def reference_mlp(x: torch.Tensor, gate: Weight, up: Weight, down: Weight) -> torch.Tensor:
    """The definition of ``mlp`` in torch."""
    return product(silu(product(x, *gate)) * product(x, *up), *down)
