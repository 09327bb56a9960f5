"""Looks at what chosen rows of a decode pass attend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class Watch:
    """The selections of some rows in one pass; they come to the host once, after the last layer."""

    def __init__(self, rows: list[int], layers: int, device: torch.device) -> None:
        self._rows, self._layers = torch.tensor(rows, device=device), layers
        self._noted: list[tuple[int, int]] = []  # layer and group
        self._pages: list[torch.Tensor] = []
        self._counts: list[torch.Tensor] = []

    def note(self, layer: int, group: int, page_ids: torch.Tensor, counts: torch.Tensor) -> None:
        """What a layer reads: ``[rows, kv_heads, k]`` and ``[rows, kv_heads]``, of all rows."""
        self._noted.append((layer, group))
        self._pages.append(page_ids[self._rows])
        self._counts.append(counts[self._rows])

    def attended(self, tables: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """Per watched row bool ``[blocks, layers, kv_heads]``; layers without attention attend nothing.

        Args:
            tables: by group, pages of each watched row in order of position, those of this step included.
        """
        counts = torch.stack(self._counts).cpu().numpy()  # [noted, rows, kv_heads]
        flat = torch.cat([pages.flatten() for pages in self._pages]).cpu().numpy()
        ends = np.cumsum([pages.numel() for pages in self._pages])
        noted = [
            ids.reshape(pages.shape)
            for ids, pages in zip(np.split(flat, ends[:-1]), self._pages, strict=True)
        ]
        place = np.zeros(int(flat.max()) + 1, np.int64)  # of a page in its sequence
        found = []
        for row in range(len(self._rows)):
            blocks = max(len(table[row]) for table in tables)
            seen = np.zeros((blocks, self._layers, counts.shape[2]), bool)
            for group, table in enumerate(tables):
                known = np.asarray(table[row])
                inside = (known > 0) & (known < len(place))  # page 0 stands for pages that were given back
                place[known[inside]] = np.flatnonzero(inside)
                for index, (layer, of) in enumerate(self._noted):
                    if of == group:
                        ids = noted[index]
                        head, rank = np.nonzero(np.arange(ids.shape[2]) < counts[index, row][:, None])
                        seen[place[ids[row, head, rank]], layer, head] = True
            found.append(seen)
        return found
