"""Looks at what chosen rows of a decode pass attend."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
import torch

from seer_ray.engine.flight import Readback
from seer_ray.engine.sequence import Sequence
from seer_ray.kernels.upload import upload
from seer_ray.models.group import Group


class Noted(NamedTuple):
    """What a layer reads, of all rows."""

    layer: int
    group: int
    """Of its cache."""
    page_ids: torch.Tensor
    """``[rows, kv_heads, k]``"""
    counts: torch.Tensor
    """``[rows, kv_heads]``"""


class Selections:
    """Those of all layers of a pass; in a captured one the same tensors in every step."""

    def __init__(self) -> None:
        self.noted: list[Noted] = []

    def note(self, layer: int, group: int, page_ids: torch.Tensor, counts: torch.Tensor) -> None:
        """See ``Noted``."""
        self.noted.append(Noted(layer, group, page_ids, counts))


class Watch:
    """The selections of some rows in one pass, on their way to the host.

    Args:
        selections: of the pass, which has been launched.
        rows: row and sequence of each that is watched, not committed yet.
        block: tokens a page.
        layers: of the model; those without attention attend nothing.
        ranks: each has KV heads of its own.
    """

    def __init__(
        self,
        selections: Selections,
        rows: Seq[tuple[int, Sequence]],
        block: int,
        layers: int,
        ranks: Group,
    ) -> None:
        self._rows, self._layers, self._ranks = [row for row, _ in rows], layers, ranks
        self._tables = [[pages[: s.cached // block + 1] for pages in s.pages] for _, s in rows]
        noted = selections.noted
        chosen = upload(self._rows, noted[0].counts.device)
        self._of = [(of.layer, of.group) for of in noted]
        self._widths = [of.page_ids.shape[2] for of in noted]
        self._counts = Readback(torch.stack([of.counts[chosen] for of in noted]))
        self._ids = Readback(torch.cat([of.page_ids[chosen] for of in noted], dim=2))

    def attended(self) -> dict[int, np.ndarray]:
        """Waits. By row bool ``[blocks, layers, kv_heads of all ranks]``."""
        counts, ids = self._counts.wait().numpy(), self._ids.wait().numpy()
        by_layer = np.split(ids, np.cumsum(self._widths)[:-1], axis=2)  # [rows, kv_heads, k] each
        place = np.zeros(int(ids.max()) + 1, np.int64)  # of a page in its sequence
        found = []
        for index, tables in enumerate(self._tables):
            seen = np.zeros((max(map(len, tables)), self._layers, counts.shape[2]), bool)
            for group, table in enumerate(tables):
                known = np.asarray(table)
                inside = (known > 0) & (known < len(place))  # page 0 stands for pages that were given back
                place[known[inside]] = np.flatnonzero(inside)
                for at, (layer, of) in enumerate(self._of):
                    if of == group:
                        chosen = by_layer[at][index]
                        head, rank = np.nonzero(np.arange(chosen.shape[1]) < counts[at, index][:, None])
                        seen[place[chosen[head, rank]], layer, head] = True
            found.append(seen)
        parts = self._ranks.gathered(found)
        return {row: np.concatenate(whole, axis=2) for row, *whole in zip(self._rows, *parts, strict=True)}
