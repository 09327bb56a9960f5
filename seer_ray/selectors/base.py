"""What a selector is: a ranking of a sequence's KV blocks for one decode step of one layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch

from seer_ray.kernels.quantise import KV
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.models.rope import RopeTable


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
    _rotary: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, repr=False)

    def rotary(self, rope: RopeTable) -> tuple[torch.Tensor, torch.Tensor]:
        """``rope.at(positions)``, computed once a step for all layers that share the table."""
        if id(rope) not in self._rotary:
            self._rotary[id(rope)] = rope.at(self.positions)
        return self._rotary[id(rope)]


@dataclass
class FullKeys:
    """Pages of one layer whose last token has just been written."""

    k: torch.Tensor
    """Rotated keys, ``[n, kv_heads, block, head_dim]``."""
    cos: torch.Tensor
    """Their rotary table rows, ``[n, block, head_dim]``."""
    sin: torch.Tensor
    first: torch.Tensor
    """Position of each page's first token, ``[n]``."""


class CurrentPages:
    """Pages that hold the current tokens of a decode step. Those that these tokens fill are to be summarised:
    decided on the device, so that a step can be captured."""

    def __init__(self, pages: torch.Tensor, positions: torch.Tensor, block: int) -> None:
        """
        Args:
            pages: physical page of each row's current token, ``[rows]``.
            positions: of the current tokens, ``[rows]``.
            block: tokens a page.
        """
        self.pages, self.positions, self.block = pages, positions, block
        self.first = positions // block * block
        """Positions of the pages' first tokens, ``[rows]``."""
        self._rotary: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._tables: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def rotary(self, rope: RopeTable) -> tuple[torch.Tensor, torch.Tensor]:
        """``rope.at(first)``, computed once a step for all layers that share the table."""
        if id(rope) not in self._rotary:
            self._rotary[id(rope)] = rope.at(self.first)
        return self._rotary[id(rope)]

    @cached_property
    def target(self) -> torch.Tensor:
        """Where the rows' summaries go: the dummy page for those that are not full."""
        return torch.where((self.positions + 1) % self.block == 0, self.pages, 0)

    def tables(self, rope: RopeTable) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's table rows of all tokens of the pages, ``[rows, block, head_dim]``."""
        if id(rope) not in self._tables:
            slots = self.first.unsqueeze(1) + torch.arange(self.block, device=self.first.device)
            # A page that is not full may reach beyond the tables.
            self._tables[id(rope)] = rope.at(slots.clamp(max=rope.positions - 1))
        return self._tables[id(rope)]


@dataclass
class Query:
    """What one layer asks in one decode step, and of what."""

    q_nope: torch.Tensor
    """Before rotation, ``[rows, q_heads, head_dim]``."""
    q: torch.Tensor
    """After it."""
    kv: KV
    """The layer's cache, see ``kernels``."""
    summary: torch.Tensor | None
    """``[pages, kv_heads, summary_width]``."""
    scale: float
    """Of the attention logits."""


class Selector(ABC):
    """One layer's ranking. Forced blocks, budget and top-k are the same for all: ``kernels.select``."""

    summary_width = 0
    """Numbers kept per page and KV head; 0: none."""

    @classmethod
    @abstractmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Self:
        """That of one layer of a model; ``gate``: the layer's, for those that need one."""

    @property
    def weights(self) -> tuple[torch.Tensor, ...]:
        """What it has learned: a captured step knows where they lie, so they must stay."""
        return ()

    @property
    def sharpness(self) -> tuple[float, ...] | None:
        """What the scores of each KV head are multiplied with before they become shares; None: 1."""
        return None

    def summarise(self, full: FullKeys) -> torch.Tensor:
        """Summaries of the pages: ``[n, kv_heads, summary_width]``."""
        raise NotImplementedError(f"{type(self).__name__} keeps no summaries")

    def fill(self, kv: KV, summary: torch.Tensor, current: CurrentPages, rope: RopeTable) -> None:
        """``summarise`` of those current pages that are full, into ``summary``; asks nothing of the host.
        ``rope``: with tables, the layer's.

        This is its definition: it summarises every current page and keeps what is of a full one.
        """
        full = FullKeys(kv[current.pages, :, 0], *current.tables(rope), current.first)
        summary[current.target] = self.summarise(full).to(summary.dtype)

    def look_up(self, positions: int, tables: dict[Any, RopeTable]) -> None:  # noqa: B027
        """For sequences of so many positions: what depends on positions alone comes from ``tables``, which
        the layers share, and is not computed in every step."""

    def step(self, query: Query, view: StepView, current: CurrentPages, rope: RopeTable) -> torch.Tensor:
        """``fill``, then ``scores``: all that a decode step asks for."""
        if query.summary is not None:
            self.fill(query.kv, query.summary, current, rope)
        return self.scores(query, view)

    @abstractmethod
    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        """``[rows, kv_heads, max_pages]`` fp32, larger is better; only complete blocks matter."""
