"""Eight figures of an attention map, as in Xue et al. (2025), "Deconstructing Attention"."""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = (
    "entropy",
    "concentration",
    "diversity",
    "sink",
    "local_0",
    "local_1",
    "local_2",
    "local_3",
)


def indicators(weights: Tensor, rows: Tensor) -> dict[str, float]:
    """Means over rows and heads.

    ``entropy`` in nats; ``concentration``: norm of a row, which is the map's Frobenius norm over the root of
    its rows, 1 where a row reads one token; ``diversity``: how far the heads' rows are from their mean, as
    the root of the summed variance; ``sink``: weight on the first token; ``local_N``: weight at a distance of
    N tokens.

    Args:
        weights: of the rows, ``[heads, rows, tokens]``.
        rows: their positions, ``[rows]``.
    """
    some = weights.double()
    spread = some.var(0, correction=0).sum(-1).sqrt()
    found = {
        "entropy": -torch.special.xlogy(some, some).sum(-1).mean(),
        "concentration": some.norm(dim=-1).mean(),
        "diversity": spread.mean(),
        "sink": some[..., 0].mean(),
    }
    for distance in range(4):
        known = rows >= distance
        place = (rows[known] - distance).view(1, -1, 1).expand(len(some), -1, 1)
        found[f"local_{distance}"] = some[:, known].gather(2, place).mean()
    return {name: float(found[name]) for name in NAMES}
