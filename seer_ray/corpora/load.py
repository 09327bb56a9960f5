"""What the data option of distillation gives."""

from __future__ import annotations

from collections.abc import Iterable

from seer_ray.config.errors import ConfigError
from seer_ray.config.measuring import HeldOutConfig
from seer_ray.config.training import DistillConfig
from seer_ray.corpora.documents import Document, parse_sources, read_documents
from seer_ray.corpora.split import Corpus, join, split_documents
from seer_ray.models.load import LoadedModel


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


def longest(sources: Iterable[Iterable[Document]], count: int) -> list[Document]:
    """The longest documents, of all sources in turn."""
    queues = [sorted(source, key=lambda d: (-len(d.tokens), d.rank()))[:count] for source in sources]
    found: list[Document] = []
    for place in range(count):
        found += [queue[place] for queue in queues if place < len(queue)]
    return found[:count]


def longest_documents(
    config: HeldOutConfig, loaded: LoadedModel, block: int, held_out: bool = True
) -> list[Document]:
    """The longest of each source that are held out, or that are not; or what is joined of them.

    With ``held_out=1`` all are both.

    Raises:
        ConfigError: a source has none.
    """
    found = []
    for source in parse_sources(config.data):
        option = f"data={source.path}"
        read = read_documents(source, loaded.tokenizer, loaded.name)
        whole = config.held_out >= 1
        joins = config.join or source.join
        least = 1 if joins else block
        corpus = split_documents(read, config.length, least, 0.0 if whole else config.held_out, option)
        pieces = corpus.held_out if held_out and not whole else corpus.train
        if not pieces:
            raise ConfigError(
                f"{option}: no document is held out (held_out={config.held_out:g}, {len(corpus.train)} are"
                " there); set held_out=1 if the gates were never trained on them"
            )
        if joins:
            pieces = join(pieces, config.length)
        pieces = [piece for piece in pieces if len(piece.tokens) >= 2 * block]
        if not pieces:
            raise ConfigError(f"{option}: no document of these has two blocks, {2 * block} tokens")
        pieces.sort(key=lambda piece: (-len(piece.tokens), piece.rank()))
        found += pieces[: config.documents]
    return found
