"""The fewest blocks whose shares sum to a mass: in whole numbers, whose sums are the same in any order."""

from __future__ import annotations

import torch

STEPS = 2.0**40
"""Of a softmax's term; the largest term is 1."""


def terms(scores: torch.Tensor, sharpness: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Terms of the softmax of ``scores * sharpness`` over the last dimension, int64, before they are divided
    by their sum. Where a score is NaN or inf nothing has a share."""
    peak = scores.amax(-1, keepdim=True)
    return (((scores - peak) * sharpness).exp() * STEPS).nan_to_num(0.0).long()


def needed(terms: torch.Tensor, mass: torch.Tensor | float) -> torch.Tensor:
    """Of terms in order of rank, ``[..., blocks]``, those that come before the mass is reached.

    Args:
        terms: see above.
        mass: a share of their sum.
    """
    target = (terms.sum(-1, keepdim=True).float() * mass).long()
    return terms.cumsum(-1) - terms < target
