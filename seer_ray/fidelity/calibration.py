"""Whether shares of the scores mean attention: the mass that a selector predicts, beside what is kept.

Both are of complete blocks: of the open one nothing is known before it is full. A gate's logits are divided
by a temperature (Guo et al., "On calibration of modern neural networks", arXiv 1706.04599), which is fitted
such that the attention kept at a mass is, on average over rows and levels, that mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Masses that are asked for."""
TEMPERATURES = tuple(2 ** (eighth / 8) for eighth in range(-24, 33))
"""1/8 to 16."""


@dataclass(frozen=True)
class Ranked:
    """The complete blocks of some rows, forced ones first, then by their scores."""

    scores: Tensor
    """``[rows, kv_heads, blocks]``; -inf past a row's last one."""
    kept: Tensor
    """Attention to the blocks up to each, as a share of that to all complete ones."""
    forced: Tensor
    """How many are, ``[rows, 1, 1]``."""

    @classmethod
    def of(cls, scores: Tensor, mass: Tensor, rows: Tensor, block: int, sink: bool) -> Ranked:
        """
        Args:
            scores: ``[rows, kv_heads, blocks]``.
            mass: attention to each block, mean over a group, of the same shape.
            rows: positions, each with a complete block, ``[rows]``.
            block: tokens.
            sink: the first block is always read.
        """
        index, row = torch.arange(scores.shape[2], device=scores.device), rows.view(-1, 1, 1)
        complete = index < (row + 1) // block
        forced = complete & ((index == row // block) | (index == 0 if sink else index < 0))
        masked = torch.where(complete, scores.float(), float("-inf"))
        order = masked.masked_fill(forced, float("inf")).sort(dim=-1, descending=True, stable=True).indices
        true = torch.where(complete, mass, 0.0)
        kept = (true / true.sum(-1, keepdim=True)).gather(2, order).cumsum(-1)
        return cls(masked.gather(2, order), kept, forced.sum(-1, keepdim=True))

    def at(self, sharpness: Tensor | float = 1.0) -> Tensor:
        """What each mass of ``LEVELS`` selects, without a cap: the sum of its shares, and what is kept.

        Args:
            sharpness: of each KV head, ``[kv_heads, 1]``, or of all.

        Returns:
            ``[2, levels, rows, kv_heads]``: predicted, kept.
        """
        shares = (self.scores * sharpness).softmax(-1)
        sums = shares.cumsum(-1)
        found = []
        for level in LEVELS:
            needed = ((sums - shares < level) & (shares > 0)).sum(-1, keepdim=True)
            last = torch.maximum(needed, self.forced).clamp(min=1) - 1
            found.append(torch.stack([x.gather(2, last).squeeze(2) for x in (sums, self.kept)]))
        return torch.stack(found, dim=1)


class TemperatureFit:
    """Finds the temperature of each KV head of one layer."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        """``[2, temperatures, levels, kv_heads]``: predicted, kept, summed over rows."""
        self.rows = 0

    def add(self, ranked: Ranked) -> None:
        """Some more rows."""
        parts = [ranked.at(1 / temperature).double().sum(2) for temperature in TEMPERATURES]
        sums = torch.stack(parts, dim=1).cpu()
        self.sums = sums if self.sums is None else self.sums + sums
        self.rows += len(ranked.scores)

    @property
    def means(self) -> Tensor:
        """``[2, temperatures, levels, kv_heads]``"""
        assert self.sums is not None
        return self.sums / self.rows

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of each KV head: where kept and predicted mass agree on average over the levels; where they nowhere
        do, the one of ``TEMPERATURES`` at which they come closest."""
        predicted, kept = self.means
        return tuple(map(_agreement, (kept - predicted).mean(1).T.tolist()))

    def figures(self, temperatures: Sequence[float]) -> tuple[list[float], list[float]]:
        """Predicted and kept mass at each level, mean over KV heads, at these temperatures: by straight lines
        between those that were looked at."""
        grid, at = (torch.tensor(x, dtype=torch.float64).log2() for x in (TEMPERATURES, temperatures))
        left = (torch.searchsorted(grid, at, right=True) - 1).clamp(0, len(grid) - 2)
        weight = ((at - grid[left]) / (grid[left + 1] - grid[left])).view(-1, 1, 1)
        head = torch.arange(len(at))
        low, high = (self.means[:, place, :, head] for place in (left, left + 1))  # [kv_heads, 2, levels]
        predicted, kept = (low + (high - low) * weight).mean(0)
        return predicted.tolist(), kept.tolist()


def _agreement(gaps: Sequence[float]) -> float:
    """The temperature at which a gap that grows with it is 0."""
    for (cold, low), (warm, high) in pairwise(zip(TEMPERATURES, gaps, strict=True)):
        if low <= 0 < high:
            return float(cold * (warm / cold) ** (low / (low - high)))
    return float(TEMPERATURES[min(range(len(gaps)), key=lambda place: abs(gaps[place]))])
