"""The best that block selection could do: true block-max of the attention probabilities."""

from __future__ import annotations

import torch

from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Query, Selector, StepView


class Oracle(Selector):
    """Reads every key, so it saves nothing: a measuring stick, not a way to decode fast.

    Scores are logarithms of the block maxima, so that their softmax is a block's share of the sum.
    """

    @classmethod
    def of(cls, layer: int, shape: AttentionShape, gate: AttnGate | None) -> Oracle:
        return cls()

    def scores(self, query: Query, view: StepView) -> torch.Tensor:
        rows, width = view.page_table.shape
        kv, device = query.kv, view.page_table.device
        heads, block, dim = kv.shape[1], kv.shape[3], kv.shape[4]
        used = view.page_table.masked_fill(
            torch.arange(width, device=device) * block >= view.lengths.unsqueeze(1), 0
        )
        k = kv[used, :, 0].permute(0, 2, 1, 3, 4).reshape(rows * heads, width * block, dim)
        grouped = query.q.reshape(rows * heads, -1, dim).float()
        logits = torch.bmm(grouped, k.transpose(1, 2).float()).mul_(query.scale)
        logits = logits.view(rows, heads, -1, width * block)
        dead = torch.arange(width * block, device=device) >= view.lengths.view(rows, 1, 1, 1)
        log_p = torch.log_softmax(logits.masked_fill_(dead, float("-inf")), dim=-1)
        return log_p.view(rows, heads, -1, width, block).amax(dim=(2, 4))
