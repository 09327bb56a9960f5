"""Looks at what chosen rows of a decode pass attend."""

from __future__ import annotations

import numpy as np
import torch


class Watch:
    """The selections of some rows in one pass; they come to the host once, after the last layer."""

    def __init__(self, rows: list[int], device: torch.device) -> None:
        self._rows = torch.tensor(rows, device=device)
        self._pages: list[torch.Tensor] = []
        self._counts: list[torch.Tensor] = []

    def note(self, page_ids: torch.Tensor, counts: torch.Tensor) -> None:
        """What the next layer reads: ``[rows, kv_heads, k]`` and ``[rows, kv_heads]``, of all rows."""
        self._pages.append(page_ids[self._rows])
        self._counts.append(counts[self._rows])

    def attended(self, tables: list[list[int]]) -> list[np.ndarray]:
        """Per watched row bool ``[blocks, layers, kv_heads]``.

        Args:
            tables: pages of each watched row in order of position, those of this step included.
        """
        counts = torch.stack(self._counts).cpu().numpy()  # [layers, rows, kv_heads]
        flat = torch.cat([pages.flatten() for pages in self._pages]).cpu().numpy()
        ends = np.cumsum([pages.numel() for pages in self._pages])
        layers = [
            ids.reshape(pages.shape)
            for ids, pages in zip(np.split(flat, ends[:-1]), self._pages, strict=True)
        ]
        place = np.zeros(int(flat.max()) + 1, np.int64)  # of a page in its sequence
        found = []
        for row, table in enumerate(tables):
            seen = np.zeros((len(table), len(layers), counts.shape[2]), bool)
            known = np.asarray(table)
            place[known[known < len(place)]] = np.flatnonzero(known < len(place))
            for layer, ids in enumerate(layers):
                head, rank = np.nonzero(np.arange(ids.shape[2]) < counts[layer, row][:, None])
                seen[place[ids[row, head, rank]], layer, head] = True
            found.append(seen)
        return found
