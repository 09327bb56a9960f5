"""What a selector is: a ranking of a sequence's KV blocks for one decode step of one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass
class StepView:
    """What a selector may look at in one decode step. Rows are sequences."""

    positions: torch.Tensor
    """Position of the current token, ``[rows]``."""
    lengths: torch.Tensor
    """``positions + 1``: tokens in the cache."""
    page_table: torch.Tensor
    """Physical pages in order of position, ``[rows, max_pages]``."""
    block: int
    """Tokens a page."""


class Selector(Protocol):
    """One layer's ranking. Forced blocks, budget and top-k are the same for all: ``kernels.select``."""

    summary_width: int
    """Numbers kept per page and KV head; 0: none."""

    def summarise(
        self, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, first: torch.Tensor
    ) -> torch.Tensor:
        """Summaries of pages that are now full: ``[n, kv_heads, summary_width]``.

        Args:
            k: rotated keys, ``[n, kv_heads, block, head_dim]``.
            cos, sin: their rotary table rows, ``[n, block, head_dim]``.
            first: position of each page's first token, ``[n]``.
        """
        ...

    def scores(
        self,
        q_nope: torch.Tensor,
        q: torch.Tensor,
        kv: torch.Tensor,
        summary: torch.Tensor | None,
        view: StepView,
        scale: float,
    ) -> torch.Tensor:
        """``[rows, kv_heads, max_pages]`` fp32, larger is better; only complete blocks matter.

        Args:
            q_nope, q: queries before and after rotation, ``[rows, q_heads, head_dim]``.
            kv: the layer's cache, see ``kernels``.
            summary: ``[pages, kv_heads, summary_width]``.
            view: positions and pages of the rows.
            scale: of the attention logits.
        """
        ...
