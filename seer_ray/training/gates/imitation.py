"""The distillation loss of one layer: the gate's block shares against those of dense attention."""

from __future__ import annotations

import torch
from torch import Tensor

from seer_ray.corpora.pack import EVERY_ROW, Pack, Share, first_row
from seer_ray.models.gate import AttnGate

NUMBERS = 2**24
"""Of the row chunk's logits, ``rows * kv_heads * blocks``, at most: 64 MiB in fp32, a few times in memory."""


def imitate(
    gate: AttnGate,
    pack: Pack,
    q: Tensor,
    k: Tensor,
    targets: list[Tensor],
    skip: float,
    weight: float | None,
    share: Share = EVERY_ROW,
) -> float:
    """KL(target || softmax of the gate's logits over the blocks before the row's own), in nats.

    The rows are taken in chunks, each forward and at once backward, so that neither logits nor their graph
    are ever there for all rows.

    Args:
        gate: of the layer.
        pack: the documents.
        q, k: before rotation, ``[tokens, heads, head_dim]``.
        targets: of each document, ``[rows, kv_heads, blocks]``, for its rows from ``first_row`` on.
        skip: see ``first_row``.
        weight: of the sum in the loss whose gradient is added to the gate's weights; None: no gradient.
        share: of the rows.

    Returns:
        The sum over rows of the mean over KV heads, without the weight.
    """
    block, total = gate.block_size, torch.zeros((), device=q.device)
    for d, target in zip(pack.documents(), targets, strict=True):
        blocks = target.shape[2]
        if not len(target) or not blocks:
            continue
        with torch.set_grad_enabled(weight is not None):
            keys = gate.compress_keys(k[d.start : d.start + blocks * block].unsqueeze(0))
        # The chunks' gradients meet here; the pooled keys are gone through once.
        leaf = keys.detach().requires_grad_(weight is not None)
        length = d.stop - d.start
        rows = share.of(torch.arange(first_row(length, block, skip), length, device=q.device))
        size = max(1, NUMBERS // (gate.num_kv_heads * blocks))
        for some, wanted in zip(rows.split(size), share.of(target).split(size), strict=True):
            with torch.set_grad_enabled(weight is not None):
                logits = gate.score(q[d][some], some, leaf)  # [rows, kv_heads, blocks]
                loss = kl(wanted, logits, some // block).mean(1).sum()
                if weight is not None:
                    (weight * loss).backward()
            total += loss.detach()
        if weight is not None:
            assert leaf.grad is not None
            keys.backward(leaf.grad)
    return total.item()


def kl(target: Tensor, logits: Tensor, own: Tensor) -> Tensor:
    """KL(target || softmax(logits over the blocks before ``own``)), nats, ``[rows, kv_heads]``.

    Args:
        target: shares, 0 from ``own`` on, ``[rows, kv_heads, blocks]``. A row of zeros counts as 0.
        logits: ``[rows, kv_heads, blocks]``.
        own: block of the row itself, ``[rows]``, not 0.
    """
    later = (torch.arange(logits.shape[2], device=logits.device) >= own.unsqueeze(1)).unsqueeze(1)
    shares = torch.log_softmax(logits.masked_fill(later, float("-inf")), dim=2).masked_fill(later, 0.0)
    return (torch.xlogy(target, target) - target * shares).sum(2)
