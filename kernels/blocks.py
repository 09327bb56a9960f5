"""From the scores of pairs of blocks to the blocks of keys that each block of queries reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from seer_ray.kernels.mass import needed, terms


@dataclass(frozen=True)
class Amount:
    """How much is read, one of the three; see ``select_blocks``."""

    density: float | None = None
    """Share of the causal triangle of blocks."""
    threshold: float | None = None
    """Least share of the scores of a block."""
    mass: float | None = None
    """Shares of the blocks together."""
    heads: tuple[float, ...] = ()
    """Densities of heads, where they differ; ``density`` is their mean then."""

    def count(self, blocks: int, sink: bool = True) -> int:
        """Blocks of keys that a block of queries reads of a prompt of so many, in the head with the fewest:
        those that a density means (rows with fewer read all of theirs), never below what is forced. Without
        a density, all."""
        return min(self.counts(blocks, sink))

    def counts(self, blocks: int, sink: bool = True) -> list[int]:
        """The same of each head; one number, if all have the same."""
        if self.density is None:
            return [blocks]
        densities = self.heads or (self.density,)
        return [min(blocks, max(1 + sink, round(share_of(each) * blocks))) for each in densities]

    @property
    def everything(self) -> bool:
        """Whether it leaves nothing out."""
        return self.density == 1 or self.mass == 1


def share_of(density: float) -> float:
    """k over n where every one of n rows of blocks reads k blocks, fewer where there are fewer, and that is
    so large a share of the causal triangle: 1 - (1 - k / n) ** 2 = density."""
    return 1 - math.sqrt(1 - density)


def select_blocks(
    logits: torch.Tensor, own: torch.Tensor, blocks: int, amount: Amount, sink: bool = True
) -> torch.Tensor:
    """The blocks of keys that each block of queries reads: its own always, the first one if ``sink``.

    Forced blocks are inside the amount. Exact and deterministic: of equal scores the earlier block.

    - density: the best ``amount.counts(blocks)`` blocks;
    - threshold: blocks whose share in the softmax of the row's scores is above it;
    - mass: the fewest blocks, best ones first, whose shares sum to it.

    Args:
        logits: ``[heads, rows, columns]``, fp32; columns after the row's own are ignored.
        own: each row's block, ``[rows]``.
        blocks: of the whole prompt, whatever part of it the rows are.
        amount: how many are read.
        sink: force the first block.

    Returns:
        ``[heads, rows, columns]`` bool.
    """
    index = torch.arange(logits.shape[2], device=logits.device)
    there = index <= own.unsqueeze(1)  # [rows, columns]
    if amount.everything:
        return there.expand(logits.shape)
    forced = index == own.unsqueeze(1)
    if sink:
        forced = forced | (index == 0)
    masked = torch.where(there, logits, float("-inf"))
    if amount.threshold is not None:
        return ((masked.softmax(-1) > amount.threshold) | forced) & there
    # Nothing ranks with what is forced, NaN and inf neither.
    largest = torch.finfo(logits.dtype).max
    free = masked.nan_to_num(nan=largest, posinf=largest, neginf=float("-inf"))
    order = torch.where(forced, float("inf"), free).sort(dim=-1, descending=True, stable=True).indices
    if amount.mass is not None:
        chosen = needed(terms(masked).gather(2, order), amount.mass)
    else:
        counts = torch.tensor(amount.counts(blocks, sink), device=logits.device)
        chosen = (index < counts.view(-1, 1, 1)).expand(logits.shape)
    return (torch.zeros_like(chosen).scatter(2, order, chosen) | forced) & there


def listed(keep: torch.Tensor, pages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A selection as ``kernels.prefill`` takes it.

    Args:
        keep: ``[heads, rows, columns]`` bool.
        pages: of the columns, ``[columns]``.

    Returns:
        Pages in order of position, ``[rows, heads, columns]``, page 0 past the counts; and the counts,
        ``[rows, heads]``.
    """
    keep = keep.transpose(0, 1)
    columns = torch.arange(keep.shape[2], device=keep.device)
    order = torch.where(keep, columns, len(columns)).sort(dim=-1).values
    ids = pages[order.clamp(max=len(columns) - 1)]
    return ids.masked_fill(order == len(columns), 0), keep.sum(-1)
