"""What a probe reads: documents to choose on, others to compare on, and retrieval tasks beside both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import GeneratorConfig
from seer_ray.config.study import StudyProbeConfig
from seer_ray.config.training import SourceConfig
from seer_ray.corpora.documents import Document, parse_sources, read_documents
from seer_ray.corpora.load import joined
from seer_ray.corpora.split import split_documents
from seer_ray.fidelity.needles import TASKS
from seer_ray.models.load import LoadedModel
from seer_ray.results.store import shown
from seer_ray.tasks.generators import generate
from seer_ray.tasks.retrieval import Texts

SIDES = ("chosen on", "compared on")
"""Documents that a choice may see, and the others."""
LEAST = 8
"""Tokens of a document, at least, times two."""


@dataclass(frozen=True)
class Text:
    """A document, and which of its rows count: those predict the token behind them.

    Attributes:
        id: of the document: all of one source and id count as one independent draw.
        source: what its source is called (``source_names``), or the retrieval task.
        tokens: ids, ``[tokens]``.
        rows: positions, ascending, ``[rows]``; none is the last.
        recall: whether it is a retrieval task, whose rows are those of the answer.
    """

    id: str
    source: str
    tokens: Tensor
    rows: Tensor
    recall: bool = False


def read_texts(config: StudyProbeConfig, loaded: LoadedModel) -> tuple[dict[str, list[Text]], Tensor]:
    """The texts of both sides, no document of one in the other, and those that neither has, as one.

    Raises:
        ConfigError: a source cannot be read, or has too few documents.
    """
    found: dict[str, list[Text]] = {side: [] for side in SIDES}
    left: list[Tensor] = []
    sources = parse_sources(config.data)
    for number, (source, name) in enumerate(zip(sources, source_names(sources), strict=True)):
        option, joins = f"data={source.path}", config.join or source.join
        read = read_documents(source, loaded.tokenizer, loaded.name)
        corpus = split_documents(read, config.length, 1 if joins else LEAST, config.held_out, option)
        if joins:
            corpus = joined(corpus, config.length, LEAST, option)
        for side, pieces in zip(SIDES, (corpus.train, corpus.held_out), strict=True):
            documents = _distinct(pieces)
            if not documents and (side == SIDES[0] or config.held_out):
                raise ConfigError(
                    f"{option}: has no document to be {side}; give more, or held_out=0 for no comparison"
                )
            found[side] += [_text(document, name, config) for document in documents[: config.documents]]
            if not number:
                left += [document.tokens for document in documents[config.documents :]]
    for place, side in enumerate(SIDES if config.held_out else SIDES[:1]):
        for task in config.probe.recall:
            first = place * config.probe.prompts
            found[side] += list(recall_texts(task, config, loaded.tokenizer, first))
    if not config.held_out:
        found[SIDES[1]] = []
    return found, torch.cat(left) if left else torch.empty(0, dtype=torch.int32)


def source_names(sources: Sequence[SourceConfig]) -> list[str]:
    """What sources are called in rows, wherever a worker finds them: the last part of their paths, with their
    number where two are called alike."""
    names = [PurePosixPath(shown(source.path)).name for source in sources]
    return [f"{number} {name}" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def fixed_text(config: StudyProbeConfig, tokenizer: Any, length: int, left: Tensor) -> Tensor:
    """The text of ``fixed``, as long as the longest that is measured, ``[length]``.

    Raises:
        ConfigError: it cannot be read, or is shorter.
    """
    path, tokens = config.probe.fixed, left
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"probe.fixed={path}: cannot be read ({error})") from None
        tokens = torch.tensor(tokenizer(text)["input_ids"], dtype=torch.int32)
    if len(tokens) < length:
        said = f"={path}" if path is not None else ""
        remedy = "name a longer text" if path else "set it to a text file, or leave fixed out"
        raise ConfigError(
            f"probe.fixed{said}: has {len(tokens)} tokens, and {length} are read together; {remedy}"
        )
    return tokens[:length]


def recall_texts(task: str, config: StudyProbeConfig, tokenizer: Any, first: int) -> Iterator[Text]:
    """Retrieval tasks with their answers behind them; rows are those of the answers' tokens.

    Args:
        task: of ``fidelity.needles.TASKS``.
        config: of the probe.
        tokenizer: the model's.
        first: number of the first of them.

    Raises:
        ConfigError: none is so short.
    """

    def coded(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def rendered(content: str) -> str:
        if not tokenizer.chat_template:
            return f"{content}\n"
        chat = [{"role": "user", "content": content}]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    answers = 16 * (1 if task in TASKS[:2] else 8)
    room = config.length - len(coded(rendered(""))) - answers
    if room < LEAST:
        raise ConfigError(
            f"length={config.length}: leaves no room for {task}; set a larger one, or recall=[]"
        )
    generator = GeneratorConfig(name=task, length=room, unit="tokens")
    for index in range(first, first + config.probe.prompts):
        made = generate(generator, index, config.seed, Texts(lambda text: len(coded(text))))
        asked = coded(rendered(made.question))
        rows: list[int] = []
        for place, answer in enumerate(json.loads(made.answer)):
            asked += coded(" and " if place else "The answer is ")
            tokens = coded(answer)
            rows += range(len(asked) - 1, len(asked) - 1 + len(tokens))
            asked += tokens
        yield Text(made.id, task, torch.tensor(asked, dtype=torch.int32), torch.tensor(rows), recall=True)


def _distinct(pieces: Sequence[Document]) -> list[Document]:
    """The longest piece of each document, the longest first: pieces of one are no independent evidence."""
    ordered = sorted(pieces, key=lambda piece: (-len(piece.tokens), piece.rank()))
    return list({piece.id: piece for piece in reversed(ordered)}.values())[::-1]


def _text(document: Document, source: str, config: StudyProbeConfig) -> Text:
    length = len(document.tokens)
    rows = torch.arange(int(config.skip * length), length - 1, config.stride)
    return Text(document.id, source, document.tokens, rows)
