"""Selectors as a user would write them: one that keeps to what is expected, and some that do not."""

from __future__ import annotations

from typing import Any

import torch

from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import FullKeys, Query, Selector, StepView


class Norm(Selector):
    """Blocks with long keys first."""

    summary_width = 1

    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Any:
        return cls()

    def summarise(self, full: FullKeys) -> torch.Tensor:
        return full.k.float().norm(dim=-1).mean(-1, keepdim=True)

    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        assert query.summary is not None
        return query.summary[view.page_table].squeeze(-1).transpose(1, 2).float()


class Double(Norm):
    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        return super().scores(query, view).double()


class BesideOthers(Norm):
    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        found = super().scores(query, view)
        return found - found.mean(0, keepdim=True)


class ByPlace(Norm):
    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        return super().scores(query, view) + view.page_table.unsqueeze(1)


class Unwritten(Norm):
    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        last = query.kv[view.page_table[:, -1]].float().sum((1, 2, 3, 4))
        return super().scores(query, view) + last.view(-1, 1, 1)


class Asks(Norm):
    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        return super().scores(query, view) * float(view.lengths.max() > 0)


class Writes(Norm):
    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        query.q.mul_(2)
        return super().scores(query, view)


class Nothing:
    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Any:
        return cls()
