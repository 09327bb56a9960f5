"""What the data option of distillation gives."""

from __future__ import annotations

from collections.abc import Sequence

from seer_ray.config import ConfigError
from seer_ray.models.load import LoadedModel
from seer_ray.training.data import Corpus, join, split_documents
from seer_ray.training.documents import Document, parse_sources, read_documents
from seer_ray.training.options import DistillConfig


def load_corpora(config: DistillConfig, loaded: LoadedModel, block: int) -> list[Corpus]:
    """Every source's documents, read, cut and split.

    Raises:
        ConfigError: a source cannot be read, or has nothing long enough.
    """
    if config.train.length < 2 * block:
        raise ConfigError(
            f"train.length={config.train.length}: must be at least two blocks, {2 * block} tokens"
        )
    corpora = []
    for source in parse_sources(config.data):
        documents = read_documents(source, loaded.tokenizer, loaded.name)
        option, length = f"data={source.path}", config.train.length
        least = 1 if source.join else block
        corpus = split_documents(documents, length, least, config.evaluation.held_out, option)
        corpora.append(joined(corpus, length, block, option) if source.join else corpus)
    return corpora


def joined(corpus: Corpus, length: int, block: int, option: str) -> Corpus:
    """With both sides of the split joined, each for itself; what is left of less than two blocks goes.

    Raises:
        ConfigError: all documents together have not two blocks.
    """
    train, held_out = (
        [document for document in join(part, length) if len(document.tokens) >= 2 * block]
        for part in (corpus.train, corpus.held_out)
    )
    if not train:
        raise ConfigError(
            f"{option}: nothing to learn from: joined, less than two blocks, {2 * block} tokens"
        )
    return Corpus(train, held_out, corpus.too_short)


def longest(corpora: Sequence[Corpus], count: int) -> list[Document]:
    """Held-out documents, the longest ones, of all sources in turn."""
    queues = [sorted(corpus.held_out, key=lambda d: (-len(d.tokens), d.rank()))[:count] for corpus in corpora]
    found: list[Document] = []
    for place in range(count):
        found += [queue[place] for queue in queues if place < len(queue)]
    return found[:count]
