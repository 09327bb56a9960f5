"""Products of rows with weights: what a pass does outside attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import linear as product
from torch.nn.functional import silu

from seer_ray.kernels import cpu, gpu

Weight = tuple[torch.Tensor, torch.Tensor | None]
"""Weight ``[outputs, inputs]`` and bias ``[outputs]``."""


def projections(x: torch.Tensor, weights: Sequence[Weight]) -> list[torch.Tensor]:
    """``x W^T + b`` for several weights that read the same rows, such as those of q, k and v.

    On a CPU they are multiplied by compiled C++, sums in fp32, rounded once. A row's bits then depend neither
    on the number of rows, its batch mates and its place among them nor on the number of threads. Many rows of
    bfloat16 are left to torch where the CPU multiplies bfloat16 itself, see ``cpu.FEW``.

    Args:
        x: ``[..., inputs]``.
        weights: of the dtype of ``x``.

    Returns:
        For each weight ``[..., outputs]``, dtype of ``x``.
    """
    if cpu.takes_projections(x, weights):
        return cpu.projections(x, weights)
    if gpu.takes(x) and (joined := joint(weights)) is not None:
        return list(product(x, *joined).split([len(weight) for weight, _ in weights], dim=-1))
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
    if gpu.takes(x) and (joined := joint((gate, up))) is not None:
        from seer_ray.kernels import triton_rows

        inner = triton_rows.silu_product(product(x, *joined).flatten(0, -2))
        return product(inner.view(*x.shape[:-1], -1), *down)
    return reference_mlp(x, gate, up, down)


def join(weights: Sequence[Weight]) -> list[Weight]:
    """The same weights as parts of one, one behind the other, which ``projections`` multiplies at once."""
    whole = torch.cat([weight for weight, _ in weights])
    sizes = [len(weight) for weight, _ in weights]
    biases = [bias for _, bias in weights if bias is not None]
    if len(biases) < len(weights):
        return [(part, bias) for part, (_, bias) in zip(whole.split(sizes), weights, strict=True)]
    return list(zip(whole.split(sizes), torch.cat(biases).split(sizes), strict=True))


def joint(weights: Sequence[Weight]) -> Weight | None:
    """The one weight that these are parts of, see ``join``; None: they are not, or some have a bias alone."""
    whole = _whole([weight for weight, _ in weights])
    biases = [bias for _, bias in weights if bias is not None]
    if whole is None or not biases:
        return None if whole is None else (whole, None)
    bias = _whole(biases) if len(biases) == len(weights) else None
    return None if bias is None else (whole, bias)


def _whole(parts: Sequence[torch.Tensor]) -> torch.Tensor | None:
    first, end = parts[0], parts[0].data_ptr()
    for part in parts:
        if part.data_ptr() != end or not part.is_contiguous() or part.shape[1:] != first.shape[1:]:
            return None
        end += part.numel() * part.element_size()
    if first.untyped_storage().data_ptr() != parts[-1].untyped_storage().data_ptr():
        return None  # neighbours by chance
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def reference(x: torch.Tensor, weights: Sequence[Weight]) -> list[torch.Tensor]:
    """The definition of ``projections`` in torch."""
    return [product(x, weight, bias) for weight, bias in weights]


def reference_mlp(x: torch.Tensor, gate: Weight, up: Weight, down: Weight) -> torch.Tensor:
    """The definition of ``mlp`` in torch."""
    return product(silu(product(x, *gate)) * product(x, *up), *down)
