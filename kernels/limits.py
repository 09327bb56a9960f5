"""How much the KV heads of a layer may read in a step: what ``select`` is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Rule = Literal["count", "threshold", "mass"]
RULES: tuple[Rule, ...] = ("count", "threshold", "mass")
"""In the order of their numbers in compiled code."""


@dataclass(frozen=True, eq=False)
class Limits:
    """Of one layer. Whatever the rule, a head reads at most its budget: ``blocks``, or where that is more its
    ``fraction`` of the blocks that there are; of a head with ``early`` budgets, those come first.

    - count: the best ones, as many as the budget;
    - threshold: those whose share is above the level;
    - mass: the fewest, best ones first, whose shares sum to the level.

    A share is a block's part in the softmax of the scores of complete blocks, times the sharpness.
    """

    table: torch.Tensor
    """``[kv_heads, 4 + early]`` fp32: blocks, fraction, level, sharpness, then the budgets where there are 1,
    2, ... blocks. Captured steps know where it lies."""
    rule: Rule
    sink: bool
    """Force the first block."""
    least: int
    """The smallest budget of a head, where there are that many blocks."""
    whole: int
    """So many blocks are all within everyone's budget."""
    most: int
    """The largest budget but for fractions."""
    fraction: float
    """The largest."""

    @classmethod
    def of(
        cls,
        heads: int,
        blocks: int | Sequence[int],
        sink: bool,
        *,
        threshold: float | Sequence[float] | None = None,
        mass: float | Sequence[float] | None = None,
        fraction: float | Sequence[float] = 0.0,
        sharpness: Sequence[float] | None = None,
        early: Sequence[Sequence[int]] | None = None,
        device: torch.device | str = "cpu",
    ) -> Limits:
        """Each number for all heads, or one for each.

        Args:
            heads: KV heads.
            blocks: at least 2 with a sink.
            sink: force the first block, inside the budget.
            threshold: 0..1.
            mass: above 0, and below 1 but for all heads: 1 is the whole budget. One of the two at most.
            fraction: 0: the budget does not grow.
            sharpness: None: 1.
            early: budgets of each head, equally many, where there are 1, 2, ... blocks; None: ``blocks`` from
                the first on.
            device: of the table.
        """
        rule: Rule = "count"
        level: float | Sequence[float] = 0.0
        if threshold is not None:
            rule, level = "threshold", threshold
        elif mass is not None and mass != 1:
            rule, level = "mass", mass
        asked = blocks, fraction, level, 1.0 if sharpness is None else sharpness
        columns = [list(each) if isinstance(each, Sequence) else [each] * heads for each in asked]
        first = [list(own) for own in early or [()] * heads]
        rows = [[*row, *own] for row, own in zip(zip(*columns, strict=True), first, strict=True)]
        # By how many blocks there are; the last one goes on.
        budgets = [[int(count) for count in heads] for heads in zip(*map(list, first), strict=True)]
        budgets.append([int(count) for count in columns[0]])
        smallest = [min(own) for own in budgets]
        short = {there: own for there, own in enumerate(smallest[:-1], 1) if own < there}
        whole = min(short) - 1 if short else max(len(smallest) - 1, smallest[-1])
        return cls(
            torch.tensor(rows, dtype=torch.float32).to(device),
            rule,
            sink,
            min([smallest[-1], *short.values()]),
            whole,
            max(map(max, budgets)),
            float(max(columns[1])),
        )

    def width(self, pages: int) -> int:
        """Most blocks that a head reads of so many."""
        return min(pages, max(self.most, int(self.fraction * pages)))

    def everything(self, pages: int) -> bool:
        """Whether all of so many blocks are read, whatever the scores."""
        return self.rule == "count" and pages <= self.whole
