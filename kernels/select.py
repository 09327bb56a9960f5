"""From block scores to the pages that attention reads."""

from __future__ import annotations

import torch

from seer_ray.kernels import cpu, gpu
from seer_ray.kernels.limits import Limits
from seer_ray.kernels.mass import needed, terms


def select(
    scores: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int, limits: Limits
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact, deterministic selection (ties: the earlier block) with forced blocks inside the budget.

    The block of the current token is always read, the first block if ``limits.sink``. With the rule count, a
    row with no more blocks than its budget reads all of them in order, so it is dense; threshold and mass
    (SeerAttention-R, section 3) read fewer, forced ones counted.

    Args:
        scores: ``[rows, kv_heads, max_pages]``, fp32; entries of incomplete blocks are ignored.
        page_table: ``[rows, max_pages]``.
        lengths: ``[rows]``, at least 1.
        block: tokens a page.
        limits: of each KV head.

    Returns:
        ``page_ids [rows, kv_heads, limits.width(max_pages)]`` and ``counts [rows, kv_heads]``, int64.
    """
    if gpu.takes(scores):
        from seer_ray.kernels import triton_select

        return triton_select.select(scores, page_table, lengths, block, limits)
    if limits.least > limits.sink and cpu.takes(scores, 1, block, 0):
        return cpu.select(scores, page_table, lengths, block, limits)
    return reference(scores, page_table, lengths, block, limits)


def reference(
    scores: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int, limits: Limits
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition of ``select`` in torch."""
    rows, heads, width = scores.shape
    index = torch.arange(width, device=scores.device)
    last = ((lengths - 1) // block).view(rows, 1, 1)
    complete = index < (lengths // block).view(rows, 1, 1)
    forced = index == last
    if limits.sink:
        forced = forced | (index == 0)
    budget, fraction, level, sharpness = limits.table[:, :4].unsqueeze(-1).unbind(1)  # [kv_heads, 1]

    masked = torch.where(complete, scores, float("-inf"))
    # Nothing ranks with what is forced, NaN and inf neither.
    largest = torch.finfo(scores.dtype).max
    free = masked.nan_to_num(nan=largest, posinf=largest, neginf=float("-inf"))
    order = torch.where(forced, float("inf"), free)
    by_rank = order.sort(dim=-1, descending=True, stable=True).indices
    k = limits.width(width)
    most = torch.maximum(budget, fraction * (last + 1))
    if (early := limits.table[:, 4:]).shape[1]:
        at = last.view(rows).clamp(max=early.shape[1] - 1)
        most = torch.where(last < early.shape[1], early[:, at].t().unsqueeze(-1), most)
    counts = torch.minimum(last + 1, most.long()).clamp(max=k)
    if limits.rule == "threshold":
        share = torch.softmax(masked * sharpness, dim=-1).nan_to_num(0.0)  # no complete block: all -inf
        counts = torch.minimum(counts, ((share > level) | forced).sum(-1, keepdim=True))
    elif limits.rule == "mass":
        forced = forced.expand_as(scores).gather(2, by_rank)
        enough = needed(terms(masked, sharpness).gather(2, by_rank), level) | forced
        counts = torch.minimum(counts, enough.sum(-1, keepdim=True))
    # Ascending positions; what is past the count goes to the end and names the dummy page 0.
    rank = torch.arange(k, device=scores.device)
    chosen = torch.where(rank < counts, by_rank[..., :k], width).sort(dim=-1).values
    pages = page_table.unsqueeze(1).expand(rows, heads, width).gather(2, chosen.clamp(max=width - 1))
    return torch.where(chosen < width, pages, 0), counts.squeeze(-1)
