"""The distillation loss of one layer's prefill gate: its shares of blocks against those of attention."""

from __future__ import annotations

import torch
from torch import Tensor

from seer_ray.corpora.pack import EVERY_ROW, Pack, Share
from seer_ray.models.prefill_gate import PrefillGate

LOSSES = ("kl", "mse")


def first_block(length: int, block: int, skip: float) -> int:
    """First block of rows of a document that is trained on; ``skip``: share of them to leave out."""
    return int(skip * -(-length // block))


def imitate_blocks(
    gate: PrefillGate,
    pack: Pack,
    q: Tensor,
    k: Tensor,
    targets: list[Tensor],
    skip: float,
    weight: float | None,
    share: Share = EVERY_ROW,
    loss: str = "kl",
) -> float:
    """KL(target || softmax of the gate's logits) in nats, or their squared distance.

    Args:
        gate: of the layer.
        pack: the documents.
        q, k: before rotation, ``[tokens, heads, head_dim]``.
        targets: of each document, ``[q_heads, q_blocks, k_blocks]``, rows summing to 1.
        skip: see ``first_block``.
        weight: of the sum in the loss whose gradient is added to the gate's weights; None: no gradient.
        share: of the blocks of rows.
        loss: of ``LOSSES``.

    Returns:
        The sum over blocks of rows of the mean over query heads, without the weight.
    """
    total = torch.zeros((), device=q.device)
    for d, target in zip(pack.documents(), targets, strict=True):
        rows = share.of(torch.arange(first_block(d.stop - d.start, gate.block_size, skip), target.shape[1]))
        if not len(rows):
            continue
        with torch.set_grad_enabled(weight is not None):
            logits = gate.score(q[d], k[d])[:, rows]
            found = row_loss(target[:, rows].float(), logits, loss).mean(0).sum()
            if weight is not None:
                (weight * found).backward()
        total += found.detach()
    return total.item()


def row_loss(target: Tensor, logits: Tensor, loss: str) -> Tensor:
    """Of each row, ``[.., rows]``. ``target``, ``logits``: ``[.., rows, columns]``; a logit of -inf: not
    there."""
    if loss == "mse":
        return (logits.softmax(-1) - target).square().sum(-1)
    there = logits.isfinite()
    shares = torch.log_softmax(logits, dim=-1).masked_fill(~there, 0.0)
    return (torch.xlogy(target, target) - target * shares).sum(-1)
