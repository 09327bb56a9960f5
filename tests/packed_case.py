"""Packed prompt chunks over a paged cache, and their attention written out."""

from __future__ import annotations

import torch
from paged_case import kept_as

from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.quantise import KV

SPANS = ((0, 37), (21, 22), (5, 71), (32, 48), (63, 65))
"""From position 0; one token; from within a page over several borders; one whole page; over a border."""


class PackedCase:
    """A cache in which everything is NaN but page 0 and the tokens that some chunk may read.

    Every chunk is of a sequence of its own. With ``k``, each tile and KV head reads up to ``k`` pages drawn
    at random; with ``own_lists`` each tile and query head. Slots past the count hold garbage. Drawn on the
    CPU: the same on every device. With a
    ``kv_dtype`` the cache is quantised, and the scales are NaN instead. With a ``window`` the pages before it
    are nobody's. ``sinks``: whether there are any.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        spans: tuple[tuple[int, int], ...] = SPANS,
        k: int = 0,
        heads: int = 2,
        group: int = 3,
        dim: int = 32,
        block: int = 16,
        seed: int = 0,
        device: str = "cpu",
        kv_dtype: torch.dtype | None = None,
        window: int | None = None,
        sinks: bool = False,
        own_lists: bool = False,
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.scale, self.block, self.dim, self.group = dim**-0.5, block, dim, group
        widths = [-(-end // block) for _, end in spans]
        order = 1 + torch.randperm(sum(widths) + 3, generator=draw)
        table = torch.full((len(spans), max(widths) + 2), 2**40)
        for row, own in enumerate(order[: sum(widths)].split(widths)):
            table[row, : len(own)] = own
        live = torch.randn(len(order) + 1, heads, 2, block, dim, generator=draw).to(dtype)
        self.kv: KV = torch.full_like(live, float("nan"))
        self.kv[0] = 0
        for row, (_, end) in enumerate(spans):
            for index in range(widths[row]):
                page, tokens = table[row, index], min(block, end - index * block)
                self.kv[page, :, :, :tokens] = live[page, :, :, :tokens]
        count = sum(end - start for start, end in spans)
        # Of a larger product, as projections make them.
        mixed = 2 * torch.randn(count, (group + 1) * heads, dim, generator=draw)
        self.q = mixed.to(dtype).to(device)[:, : group * heads]
        self.page_ids: torch.Tensor | None = None
        self.counts: torch.Tensor | None = None
        self.chunks = Chunks(spans, table.to(device), block)
        if k:
            self._select(k, group if own_lists else 1, table, draw)
        self.window = window
        if window is not None:
            for row, (start, _) in enumerate(spans):
                gone = max(0, start - window + 1) // block
                self.kv[table[row, :gone]] = float("nan")
                self.chunks.table[row, :gone] = 0
        self.sinks = 3 * torch.randn(heads * group, generator=draw).to(device) if sinks else None
        self.kv = kept_as(self.kv.to(device), kv_dtype)

    def _select(self, k: int, sharing: int, table: torch.Tensor, draw: torch.Generator) -> None:
        heads, tiles, device = self.kv.shape[1] * sharing, self.chunks.tiles, self.q.device
        ids = torch.full((len(tiles), heads, k), 2**40)
        counts = torch.zeros(len(tiles), heads, dtype=torch.int64)
        read = torch.zeros(self.kv.shape[:2], dtype=torch.bool)
        read[0] = True
        for index, tile in enumerate(tiles):
            for head in range(heads):
                most = min(k - 1, tile.block)
                past = int(torch.randint(0, most + 1, (), generator=draw))
                chosen = torch.randperm(tile.block, generator=draw)[:past].sort().values
                pages = table[tile.chunk, [*chosen.tolist(), tile.block]]
                ids[index, head, : past + 1], counts[index, head] = pages, past + 1
                read[pages, head // sharing] = True
        self.kv[~read] = float("nan")
        self.page_ids, self.counts = ids.to(device), counts.to(device)

    def arguments(self) -> tuple[object, ...]:
        selection = (self.page_ids, self.counts)
        return self.q, self.kv, self.chunks, self.scale, *selection, self.window, self.sinks

    def expected(self) -> torch.Tensor:
        """The definition in float64, tile by tile and head by head."""
        out = torch.empty(self.q.shape, dtype=torch.float64, device=self.q.device)
        lists = self.kv.shape[1] if self.page_ids is None else self.page_ids.shape[1]
        sharing, group = lists // self.kv.shape[1], self.q.shape[1] // lists
        for index, tile in enumerate(self.chunks.tiles):
            rows = slice(tile.first, tile.first + tile.end - tile.start)
            for head in range(lists):
                if self.page_ids is None or self.counts is None:
                    ids = self.chunks.table[tile.chunk, : tile.block + 1]
                else:
                    ids = self.page_ids[index, head, : int(self.counts[index, head])]
                end = (len(ids) - 1) * self.block + tile.end - tile.block * self.block
                own = self.kv[ids, head // sharing]
                k, v = (own[:, part].reshape(-1, self.dim)[:end].double() for part in (0, 1))
                members = slice(head * group, (head + 1) * group)
                logits = torch.einsum("tgd,kd->gtk", self.q[rows, members].double(), k) * self.scale
                key = torch.arange(end, device=k.device)
                last = torch.arange(end - (tile.end - tile.start), end, device=k.device).unsqueeze(1)
                unseen = key > last
                if self.window is not None:
                    unseen |= key <= last - self.window
                logits = logits.masked_fill(unseen, float("-inf"))
                if self.sinks is not None:
                    sink = self.sinks[members].double().view(-1, 1, 1).expand(-1, len(last), -1)
                    logits = torch.cat((logits, sink), dim=2)
                v = v.masked_fill(unseen.all(0).unsqueeze(1), 0)
                shares = logits.softmax(-1)[..., :end]
                out[rows, members] = torch.einsum("gtk,kd->tgd", shares, v)
        return out
