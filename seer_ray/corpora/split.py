"""Documents split into what is learned and what is held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from seer_ray.config.errors import ConfigError
from seer_ray.corpora.documents import Document


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
