"""From block scores to the pages that attention reads."""

from __future__ import annotations

import torch

from seer_ray.kernels import cpu, gpu


def select(
    scores: torch.Tensor,
    page_table: torch.Tensor,
    lengths: torch.Tensor,
    block: int,
    k: int,
    sink: bool,
    threshold: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact, deterministic top-k (ties: the earlier block) with forced blocks inside the budget.

    The block of the current token is always read, the first block if ``sink``. A row with at most ``k``
    blocks reads all of them in order, so it is dense. With a threshold, blocks are read whose share in
    the softmax of the scores of complete blocks is above it, at most ``k`` (SeerAttention-R, section 3).

    Args:
        scores: ``[rows, kv_heads, max_pages]``, fp32; entries of incomplete blocks are ignored.
        page_table: ``[rows, max_pages]``.
        lengths: ``[rows]``, at least 1.
        block: tokens a page.
        k: budget in blocks, at least 2 with a sink.
        sink: force the first block.
        threshold: share in 0..1, or None for top-k.

    Returns:
        ``page_ids [rows, kv_heads, min(k, max_pages)]`` and ``counts [rows, kv_heads]``, int64.
    """
    if gpu.takes(scores):
        from seer_ray.kernels import triton_select

        return triton_select.select(scores, page_table, lengths, block, k, sink, threshold)
    if k > sink and cpu.takes(scores, 1, block, 0):
        return cpu.select(scores, page_table, lengths, block, k, sink, threshold)
    return reference(scores, page_table, lengths, block, k, sink, threshold)


def reference(
    scores: torch.Tensor,
    page_table: torch.Tensor,
    lengths: torch.Tensor,
    block: int,
    k: int,
    sink: bool,
    threshold: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition of ``select`` in torch."""
    rows, heads, width = scores.shape
    index = torch.arange(width, device=scores.device)
    last = ((lengths - 1) // block).view(rows, 1, 1)
    complete = index < (lengths // block).view(rows, 1, 1)
    forced = index == last
    if sink:
        forced = forced | (index == 0)

    masked = torch.where(complete, scores, float("-inf"))
    # Nothing ranks with what is forced, NaN and inf neither.
    largest = torch.finfo(scores.dtype).max
    free = masked.nan_to_num(nan=largest, posinf=largest, neginf=float("-inf"))
    order = torch.where(forced, float("inf"), free)
    by_rank = order.sort(dim=-1, descending=True, stable=True).indices
    k = min(k, width)
    if threshold is None:
        counts = (last + 1).clamp(max=k).expand(rows, heads, 1)
    else:
        share = torch.softmax(masked, dim=-1).nan_to_num(0.0)  # no complete block: all -inf
        keep = (share > threshold) | forced
        counts = keep.sum(-1, keepdim=True).clamp(max=k)
    # Ascending positions; what is past the count goes to the end and names the dummy page 0.
    rank = torch.arange(k, device=scores.device)
    chosen = torch.where(rank < counts, by_rank[..., :k], width).sort(dim=-1).values
    pages = page_table.unsqueeze(1).expand(rows, heads, width).gather(2, chosen.clamp(max=width - 1))
    return torch.where(chosen < width, pages, 0), counts.squeeze(-1)
