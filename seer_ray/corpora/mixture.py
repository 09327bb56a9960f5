"""Mixtures of documents, packed into rows; a row is a function of the settings, the seed and its number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seer_ray.corpora.documents import Document
from seer_ray.corpora.pack import Pack


class Mixture:
    """Endless rows of packed documents.

    A source is taken with the probability that makes its share of the tokens its weight's share. Each source
    goes through its documents in a shuffled order, a new one each time around. A document that does not fit
    into what is left of a row is cut there, if two blocks of it fit; otherwise the row ends.

    Args:
        sources: documents and weight of each.
        length: tokens of a row, at most.
        block: tokens a block.
        seed: of shuffles and draws.
    """

    def __init__(
        self, sources: Sequence[tuple[Sequence[Document], float]], length: int, block: int, seed: int
    ) -> None:
        self.documents = [list(documents) for documents, _ in sources]
        self.length, self.block = length, block
        means = [sum(len(d.tokens) for d in documents) / len(documents) for documents in self.documents]
        rates = torch.tensor([weight / mean for (_, weight), mean in zip(sources, means, strict=True)])
        self._bounds = (rates.double() / rates.sum()).cumsum(0)
        self._draw = torch.Generator().manual_seed(seed)
        self._orders: list[list[int]] = [[] for _ in self.documents]
        self._plan: list[list[tuple[int, int, int]]] = []  # of each row: source, document, tokens taken

    def row(self, index: int) -> Pack:
        """Row ``index`` of all that will ever be: the same in every process and every session."""
        while len(self._plan) <= index:
            self._plan.append(self._next_row())
        return Pack.of([self.documents[s][d].tokens[:count] for s, d, count in self._plan[index]])

    def _next_row(self) -> list[tuple[int, int, int]]:
        taken, room = [], self.length
        while room >= 2 * self.block:
            source, document = self._next_document()
            count = min(room, len(self.documents[source][document].tokens))
            taken.append((source, document, count))
            room -= count
        return taken

    def _next_document(self) -> tuple[int, int]:
        draw = torch.rand((), generator=self._draw, dtype=torch.float64)
        source = min(int(torch.searchsorted(self._bounds, draw)), len(self.documents) - 1)
        if not self._orders[source]:
            order = torch.randperm(len(self.documents[source]), generator=self._draw)
            self._orders[source] = order.tolist()
        return source, self._orders[source].pop()
