"""The paged cache: K, V and block summaries of every layer, and the page table."""

from __future__ import annotations

import torch

from seer_ray.engine.sequence import Sequence
from seer_ray.kernels.quantise import KV, TOP, Quantised, tensors, vector_bytes
from seer_ray.kernels.upload import upload
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Selector


class PagedCache:
    """Page = block. All layers share one numbering of pages; page 0 is a dummy for padding rows.

    Attributes:
        kv: per layer ``[pages, kv_heads, 2, block, head_dim]``; K and V of a page and head lie together. In
            8 bits, with a scale for each token and head.
        summary: per layer ``[pages, kv_heads, width]`` where the layer's selector keeps one, else None.
        table: physical pages per batch row, ``[max_batch, max_pages]``, int64.
    """

    def __init__(
        self,
        shape: AttentionShape,
        selectors: list[Selector | None],
        num_pages: int,
        block: int,
        max_batch: int,
        max_pages: int,
        dtype: torch.dtype,
        device: torch.device,
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        """``kv_dtype`` is that of K and V where it is not the model's ``dtype``."""
        self.block = block
        # Zeros, not empty: the CPU maps them lazily, and no stray NaN can ever be read.
        zeros = Quantised.zeros if kv_dtype in TOP else torch.zeros
        size = (num_pages, shape.kv_heads, 2, block, shape.head_dim)
        self.kv: list[KV] = [zeros(size, dtype=kv_dtype or dtype, device=device) for _ in range(shape.layers)]
        self.summary = [
            torch.zeros(num_pages, shape.kv_heads, s.summary_width, dtype=dtype, device=device)
            if s is not None and s.summary_width
            else None
            for s in selectors
        ]
        self.table = torch.zeros(max_batch, max_pages, dtype=torch.int64, device=device)
        self._rows: list[list[int]] = [[] for _ in range(max_batch)]

    @staticmethod
    def page_bytes(
        shape: AttentionShape,
        selectors: list[Selector | None],
        block: int,
        dtype: torch.dtype,
        kv_dtype: torch.dtype,
    ) -> int:
        """Memory of one page over all layers."""
        kv = shape.layers * 2 * block * vector_bytes(kv_dtype, shape.head_dim)
        summaries = sum(s.summary_width for s in selectors if s is not None) * dtype.itemsize
        return shape.kv_heads * (kv + summaries)

    def copy_pages(self, copies: list[tuple[int, int]]) -> None:
        """Copy on write: (from, to), in order. The copy is of an open page, so it has no summary yet."""
        for source, target in copies:
            for part in (part for kv in self.kv for part in tensors(kv) if part is not None):
                part[target] = part[source]

    def place(self, sequence: Sequence) -> None:
        """Bring the sequence's row of the page table up to date."""
        row, pages = self._rows[sequence.slot], sequence.pages
        if row != pages:
            same = 0
            while same < min(len(row), len(pages)) and row[same] == pages[same]:
                same += 1
            self.table[sequence.slot, same : len(pages)] = upload(pages[same:], self.table.device)
            self._rows[sequence.slot] = list(pages)
