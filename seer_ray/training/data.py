"""Mixtures of documents, packed into rows; a row is a function of the settings, the seed and its number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from seer_ray.config import ConfigError
from seer_ray.training.documents import Document
from seer_ray.training.pack import Pack


@dataclass(frozen=True)
class Corpus:
    """What one source gives, cut and split."""

    train: list[Document]
    held_out: list[Document]
    too_short: int
    """Pieces of text that have not two blocks: left out."""


def split_documents(
    documents: Iterable[Document], length: int, block: int, held_out: float, option: str
) -> Corpus:
    """Documents as pieces of at most ``length`` tokens, split by a hash of their ids.

    A document is held out if its hash is below ``held_out``; if there is none, the ids with the smallest
    hash are, unless there is only one id. So what is held out does not depend on order, seed or mixture.

    Args:
        documents: of one source.
        length: tokens of a piece; each begins at position 0.
        block: tokens a block; a piece of less than two has nothing to rank.
        held_out: share of the ids.
        option: for errors.

    Raises:
        ConfigError: no piece is long enough.
    """
    pieces: list[Document] = []
    longest = short = 0
    for document in documents:
        longest = max(longest, len(document.tokens))
        for start in range(0, max(1, len(document.tokens)), length):
            tokens = document.tokens[start : start + length]
            if len(tokens) >= 2 * block:
                pieces.append(Document(document.id, document.source, tokens))
            else:
                short += 1
    if not pieces:
        seen = f"{short} documents, the longest has {longest} tokens" if short else "no document"
        raise ConfigError(
            f"{option}: nothing to learn from: {seen}; a document needs two blocks of {block}, {2 * block}"
            " tokens"
        )
    ranks = {piece.id: piece.rank() for piece in pieces}
    limit = held_out
    if held_out > 0 and len(ranks) > 1:
        limit = max(held_out, min(ranks.values()) * (1 + 1e-12))
        if all(rank < limit for rank in ranks.values()):  # the last stays for training
            limit = max(ranks.values())
    elif len(ranks) == 1:
        limit = 0.0
    out = [piece for piece in pieces if ranks[piece.id] < limit]
    return Corpus([piece for piece in pieces if ranks[piece.id] >= limit], out, short)


def join(pieces: Sequence[Document], length: int) -> list[Document]:
    """Documents one behind the other, in the order of their hashes, as documents of ``length`` tokens.

    The one that reaches the length is cut there and the next sequence begins with the next one; what is left
    at the end is a shorter document.
    """
    joined: list[Document] = []
    waiting: list[Document] = []
    tokens = 0
    ordered = sorted(pieces, key=lambda piece: piece.rank())
    for number, piece in enumerate(ordered, 1):
        waiting.append(piece)
        tokens += len(piece.tokens)
        if tokens >= length or number == len(ordered):
            together = torch.cat([each.tokens for each in waiting])[:length]
            joined.append(Document(f"joined from {waiting[0].id}", piece.source, together))
            waiting, tokens = [], 0
    return joined


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
