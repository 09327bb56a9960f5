"""Text as training data of small models: documents packed into rows, every token but the first a target."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import PretrainConfig
from seer_ray.corpora.documents import parse_sources, read_documents
from seer_ray.corpora.mixture import Mixture
from seer_ray.corpora.split import split_documents
from seer_ray.models.packed import Documents
from seer_ray.training.pretrain.batch import NO_TARGET, Batch

OPTION = "data.text"
EVAL_TOKENS = 65536
"""Of held-out documents, at most."""


class Texts:
    """A mixture of text or chat datasets: a ``seer_ray.training.pretrain.batch.Data``.

    Raises:
        ConfigError: a source cannot be read or has no text; rows that do not fit into a batch.
    """

    def __init__(self, config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.length, self.tokens = config.train.length, config.train.batch_tokens
        sources = parse_sources(config.data.text, OPTION)
        parts = [
            split_documents(
                read_documents(source, tokenizer, "", OPTION), self.length, 1, config.data.held_out, OPTION
            )
            for source in sources
        ]
        weighted = [(part.train, source.weight) for part, source in zip(parts, sources, strict=True)]
        self.mixture = Mixture(weighted, self.length, 1, config.train.seed)
        self.kept = [document.tokens.long() for part in parts for document in part.held_out]

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """As many rows of ``train.length`` tokens as fill ``train.batch_tokens``."""
        count = max(1, self.tokens // (self.length * world))
        first = (step * world + rank) * count
        packs = [self.mixture.row(first + index) for index in range(count)]
        return as_batch([pack.tokens[part] for pack in packs for part in pack.documents()])

    def held_out(self) -> Iterator[tuple[str, Batch]]:
        """Documents packed as batches are."""
        room, packed = EVAL_TOKENS, list[Tensor]()
        for tokens in self.kept:
            if room < len(tokens):
                break
            room -= len(tokens)
            if sum(map(len, packed)) + len(tokens) > self.tokens:
                yield "text", as_batch(packed)
                packed = []
            packed.append(tokens)
        if packed:
            yield "text", as_batch(packed)


def as_batch(documents: list[Tensor]) -> Batch:
    """Token ids of documents, ``[tokens]`` each; a token is the target of the one before it."""
    targets = []
    for tokens in documents:
        wanted = torch.full_like(tokens, NO_TARGET)
        wanted[:-1] = tokens[1:]
        targets.append(wanted)
    lengths = tuple(len(tokens) for tokens in documents)
    return Batch(torch.cat(documents), torch.cat(targets), Documents(lengths))


def check_texts(config: PretrainConfig) -> None:
    """
    Raises:
        ConfigError: no source is named as it should be, or a row fits neither the model nor the batch.
    """
    parse_sources(config.data.text, OPTION)
    length, limit = config.train.length, config.architecture.max_positions
    if length > limit:
        raise ConfigError(f"train.length={length}: must be at most architecture.max_positions={limit}")
    if length > config.train.batch_tokens:
        raise ConfigError(
            f"train.batch_tokens={config.train.batch_tokens}: must hold a row of train.length={length}"
        )
