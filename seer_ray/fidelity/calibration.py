"""Whether shares of the scores mean attention: the mass that a selector predicts, beside what is kept.

Both are of complete blocks: of the open one nothing is known before it is full. A gate's logits are divided
by a temperature (Guo et al., "On calibration of modern neural networks", arXiv 1706.04599), which is fitted
such that the attention kept at a mass is, on average over rows and levels, that mass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seer_ray.fidelity.passes import Layer, Shares
from seer_ray.selectors.seer import Seer

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Masses that are asked for."""
TEMPERATURES = tuple(2 ** (eighth / 8) for eighth in range(-24, 33))
"""1/8 to 16."""


def predicted_and_kept(
    scores: Tensor, mass: Tensor, rows: Tensor, block: int, sink: bool, sharpness: Tensor | float = 1.0
) -> Tensor:
    """Of the blocks that each mass of ``LEVELS`` selects, without a cap: the sum of their shares, and of the
    attention to them.

    Args:
        scores: ``[rows, kv_heads, blocks]``; only those of complete blocks count.
        mass: attention to each block, mean over a group, of the same shape.
        rows: positions, each with a complete block, ``[rows]``.
        block: tokens.
        sink: the first block is always read.
        sharpness: of each KV head, ``[kv_heads]``, or of all.

    Returns:
        ``[2, levels, rows, kv_heads]``: predicted, kept.
    """
    index, row = torch.arange(scores.shape[2], device=scores.device), rows.view(-1, 1, 1)
    complete = index < (row + 1) // block
    forced = complete & (index == row // block)
    if sink:
        forced = forced | (complete & (index == 0))
    masked = torch.where(complete, scores.float(), float("-inf"))
    order = masked.masked_fill(forced, float("inf")).sort(dim=-1, descending=True, stable=True).indices
    true = torch.where(complete, mass, 0.0)
    true = (true / true.sum(-1, keepdim=True)).gather(2, order).cumsum(-1)
    sharp = sharpness.view(-1, 1) if isinstance(sharpness, Tensor) else sharpness
    shares = (masked * sharp).softmax(-1).gather(2, order)
    sums = shares.cumsum(-1)
    found = []
    for level in LEVELS:
        before = (sums - shares < level) & (shares > 0)
        last = torch.maximum(before.sum(-1, keepdim=True), forced.sum(-1, keepdim=True)) - 1
        found.append(torch.stack([x.gather(2, last.clamp(min=0)).squeeze(2) for x in (sums, true)]))
    return torch.stack(found, dim=1)


class TemperatureFit:
    """Finds the temperature of each gate and KV head, on layers that it is shown."""

    def __init__(self, selectors: Sequence[Seer | None]) -> None:
        self.selectors = selectors
        self.sums: dict[int, Tensor] = {}
        """Of each layer, ``[2, temperatures, levels, kv_heads]``: predicted, kept, summed over rows."""
        self.rows: dict[int, int] = {}

    def add(self, layer: Layer, rows: Tensor, shares: Shares, scores: Tensor) -> None:
        """Some rows of a layer.

        Args:
            layer: of a dense pass.
            rows: positions.
            shares: attention of these rows.
            scores: those of the layer's gate.
        """
        pages, mass, found = layer.pages, shares.mass.mean(2), []
        for temperature in TEMPERATURES:
            part = predicted_and_kept(scores, mass, rows, pages.block, pages.sink, 1 / temperature)
            found.append(part.double().sum(2))
        sums = torch.stack(found, dim=1)
        self.sums[layer.index] = self.sums.get(layer.index, 0) + sums
        self.rows[layer.index] = self.rows.get(layer.index, 0) + len(rows)

    def temperatures(self) -> dict[int, tuple[float, ...]]:
        """Of each layer and KV head: where kept and predicted mass agree, summed over the levels; where they
        nowhere do, the temperature at which they come closest."""
        found = {}
        for layer, (predicted, kept) in sorted(self.sums.items()):
            gaps = (kept - predicted).mean(1).T.tolist()  # [kv_heads][temperatures]
            found[layer] = tuple(map(_agreement, gaps))
        return found

    def figures(self, layer: int, fitted: bool) -> tuple[list[float], list[float]]:
        """Predicted and kept mass of a layer at each level, mean over KV heads, at a temperature of 1 or at
        the fitted ones (between those that were looked at, by a straight line)."""
        heads = self.temperatures()[layer] if fitted else (1.0,) * self.sums[layer].shape[3]
        grid = torch.tensor(TEMPERATURES, dtype=torch.float64).log2()
        means = (self.sums[layer] / self.rows[layer]).cpu()
        at = torch.tensor(heads, dtype=torch.float64).log2()
        left = (torch.searchsorted(grid, at, right=True) - 1).clamp(0, len(grid) - 2)
        weight = (at - grid[left]) / (grid[left + 1] - grid[left])
        head = torch.arange(len(heads))
        low, high = means[:, left, :, head], means[:, left + 1, :, head]  # [kv_heads, 2, levels]
        predicted, kept = (low + (high - low) * weight.view(-1, 1, 1)).mean(0)
        return predicted.tolist(), kept.tolist()


def _agreement(gaps: Sequence[float]) -> float:
    """The temperature at which a gap that grows with it is 0."""
    for (cold, low), (warm, high) in zip(
        zip(TEMPERATURES, gaps, strict=True), zip(TEMPERATURES[1:], gaps[1:], strict=True), strict=False
    ):
        if low <= 0 < high:
            return float(cold * (warm / cold) ** (low / (low - high)))
    return TEMPERATURES[min(range(len(gaps)), key=lambda place: abs(gaps[place]))]
