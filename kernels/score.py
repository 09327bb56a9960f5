"""Scores of all blocks of a row against its query."""

from __future__ import annotations

import torch

from seer_ray.kernels import cpu, gpu


def score(
    features: torch.Tensor, summary: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int
) -> torch.Tensor:
    """Largest dot product of a block's summary with the query features of its group, in fp32.

    The gate has one feature vector per KV head, its query; Quest, see ``bound``, one per query head.

    Args:
        features: ``[rows, kv_heads, vectors, width]``.
        summary: one vector per physical page, ``[pages, kv_heads, width]``.
        page_table: ``[rows, max_pages]``.
        lengths: ``[rows]``; only ``lengths // block`` blocks are complete.
        block: tokens a page.

    Returns:
        ``[rows, kv_heads, max_pages]``; entries of blocks that are not complete are meaningless.
    """
    if gpu.takes(summary):
        from seer_ray.kernels import triton_score

        return triton_score.score(features, summary, page_table, lengths, block)
    if cpu.takes(summary, features.shape[2], block, 0):
        return cpu.score(features, summary, page_table, lengths, block)
    return reference(features, summary, page_table, lengths, block)


def bound(
    q: torch.Tensor,
    summary: torch.Tensor,
    page_table: torch.Tensor,
    lengths: torch.Tensor,
    block: int,
    scale: float,
) -> torch.Tensor:
    """Quest's bound of the attention logits of a block: ``score`` by the parts of q that are positive and
    negative, against the block's elementwise max and min.

    Args:
        q: rotated, ``[rows, kv_heads, group, head_dim]``.
        summary: max, then min, ``[pages, kv_heads, 2 * head_dim]``.
        page_table, lengths, block: see ``score``.
        scale: of the logits.

    Returns:
        As ``score``.
    """
    if gpu.takes(summary):
        from seer_ray.kernels import triton_score

        return triton_score.bound(q, summary, page_table, lengths, block, scale)
    wide = q.float() * scale
    features = torch.cat((wide.clamp(min=0), wide.clamp(max=0)), dim=-1)
    return score(features, summary, page_table, lengths, block)


def reference(
    features: torch.Tensor, summary: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int
) -> torch.Tensor:
    """The definition of ``score`` in torch."""
    complete = torch.arange(page_table.shape[1], device=page_table.device) < (lengths // block).unsqueeze(1)
    # [rows, kv_heads, width, max_pages]
    keys = summary[torch.where(complete, page_table, 0)].permute(0, 2, 3, 1).float()
    return torch.matmul(features.float(), keys).amax(dim=2)
