"""Rows with several queries, for decode attention: ``from span_case import SpanCase``."""

from __future__ import annotations

import torch
from attend_paths import Attend
from paged_case import kept_as

from seer_ray.kernels.quantise import KV
from seer_ray.kernels.spans import Spans

LENGTHS = (9, 16, 17, 600, 514, 3)
"""That the last query of each row sees: within a page of 16, at its end, behind it, beyond a split."""
LIVES = (5, 3, 8, 1, 2, 0)


class SpanCase:
    """Rows over pages of their own in which nothing is finite but what may be read."""

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        heads: int = 2,
        group: int = 3,
        dim: int = 64,
        block: int = 16,
        kv_dtype: torch.dtype | None = None,
        padding: int = 2,
        device: str = "cpu",
    ) -> None:
        draw = torch.Generator().manual_seed(group + dim)
        lengths, lives = torch.tensor(LENGTHS), torch.tensor(LIVES)
        pages = int(lengths.max() - 1) // block + 1
        table = 1 + torch.randperm(len(LENGTHS) * pages, generator=draw).view(-1, pages)
        kv = torch.full((1 + len(LENGTHS) * pages, heads, 2, block, dim), float("nan"))
        kv[0] = 0
        for row, length in enumerate(LENGTHS):
            for token in range(length):
                new = torch.randn(heads, 2, dim, generator=draw)
                kv[table[row, token // block], :, :, token % block] = new
        self.kv: KV = kept_as(kv.to(dtype).to(device), kv_dtype)
        self.lengths, self.table, self.block, self.heads = lengths.to(device), table.to(device), block, heads
        queries = sum(LIVES) + padding
        self.q = torch.randn(queries, heads * group, dim, generator=draw).to(dtype).to(device)
        row_of = torch.cat((torch.repeat_interleave(lives), torch.zeros(padding, dtype=torch.int64)))
        starts = lives.cumsum(0) - lives
        self.spans = Spans(starts.to(device), lives.to(device), row_of.to(device), max(LIVES))
        self.sinks = torch.randn(heads * group, generator=draw).to(device)

    def arguments(self, lengths: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ids = table.unsqueeze(1).expand(-1, self.heads, -1)
        counts = ((lengths - 1) // self.block + 1).unsqueeze(1).expand(-1, self.heads)
        return ids, counts, (lengths - 1) % self.block + 1

    def listed(self, window: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pages from the first one on that a row's first query sees, and what the last one sees of them."""
        behind = self.lengths - self.spans.lives + 1 - (window or int(self.lengths.max()))
        first = behind.clamp(min=0) // self.block
        index = first.unsqueeze(1) + torch.arange(self.table.shape[1], device=first.device)
        table = self.table.gather(1, index.clamp(max=self.table.shape[1] - 1))
        return table, self.lengths - first * self.block

    def together(self, path: Attend, sinks: bool, window: int | None) -> torch.Tensor:
        table, lengths = self.listed(window)
        last = (0.3, None, self.sinks if sinks else None, self.spans, window)
        return path(self.q, self.kv, *self.arguments(lengths, table), *last)

    def apart(self, path: Attend, sinks: bool, window: int | None) -> torch.Tensor:
        """Every query in a call of its own."""
        out, last = torch.zeros_like(self.q), (0.3, None, self.sinks if sinks else None, None, window)
        table, lengths = self.listed(window)
        for row, (start, live) in enumerate(zip(self.spans.starts.tolist(), LIVES, strict=True)):
            for place in range(live):
                seen = lengths[row : row + 1] - (live - 1 - place)
                pages = table[row : row + 1, : int(seen - 1) // self.block + 1]
                at = slice(start + place, start + place + 1)
                out[at] = path(self.q[at], self.kv, *self.arguments(seen, pages), *last)
        return out
