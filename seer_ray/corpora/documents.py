"""Documents to train and to measure on: token ids from text, chats, and runs of ours."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.training import SourceConfig
from seer_ray.corpora.reference import REFERENCE, reference_rows
from seer_ray.results.folder import RUN, RunFolder
from seer_ray.results.store import open_store
from seer_ray.results.sweep import INDEX, SweepFolder, point_uri
from seer_ray.tasks.prompts import QUESTIONS, as_text, column_value
from seer_ray.tasks.sources import Row, read_rows

TEXTS = ("text", "content")
CHATS = ("messages", "conversations")
ANSWERS = ("solution", "generation", "completion", "response", "output", "answer")
"""Names that columns go by, in the order of trust; a reasoned solution before a bare answer."""
_ROLES = {"human": "user", "gpt": "assistant"}  # of the ShareGPT format


@dataclass(frozen=True)
class Document:
    """One text as the model reads it."""

    id: str
    """The dataset's; all samples of a problem share theirs, and so stay on one side of the held-out split."""
    source: str
    """Path, hub id, or folder of a run or sweep."""
    tokens: Tensor
    """Ids, ``[tokens]`` int32."""

    def rank(self) -> float:
        """A hash of the id as a number in [0, 1): the documents with the smallest are held out."""
        return int.from_bytes(hashlib.sha256(self.id.encode()).digest()[:7], "big") / 2**56


def parse_sources(data: Any, option: str = "data") -> list[SourceConfig]:
    """The data option: a path, or a list of paths and of ``{path, weight, ...}``.

    Raises:
        ConfigError: nothing named, an unknown key, a value of the wrong type.
    """
    if data is None or data == []:
        example = f"{option}=runs/NAME (completions of a run), {option}=FILE.jsonl or a hub id"
        raise ConfigError(f"{option}: not set; name what to train on: {example}")
    entries = data if isinstance(data, (list, tuple)) else [data]
    names = [f"{option}[{index}]" if len(entries) > 1 else option for index in range(len(entries))]
    return [_source(entry, name) for entry, name in zip(entries, names, strict=True)]


def read_documents(
    source: SourceConfig, tokenizer: Any, model: str, option: str = "data"
) -> Iterator[Document]:
    """Every row of a source that has text.

    A run folder gives prompt and completion of each row, token for token if this model made them; a sweep
    folder those of all its points. A file or hub dataset gives the text of a text column, a chat by the
    tokenizer's template, or a question and its answer as such a chat. ``python:reference`` is a text that
    Python has with it.

    Args:
        source: where, and which columns.
        tokenizer: the model's.
        model: its name, to be compared with the run's.
        option: for errors.

    Raises:
        ConfigError: cannot be read, or has no text.
    """
    found: Iterator[Document]
    if runs := runs_of(source.path):
        found = itertools.chain.from_iterable(_of_run(run, source, tokenizer, model, option) for run in runs)
    elif source.path == REFERENCE:
        found = _of_rows(reference_rows(option), source, tokenizer, option)
    else:
        rows = read_rows(source.path, source.subset, source.split, option)
        found = _of_rows(rows, source, tokenizer, option)
    return itertools.islice(found, source.limit)


def _source(entry: Any, option: str) -> SourceConfig:
    if isinstance(entry, str):
        return SourceConfig(entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        raise ConfigError(f"{option}={entry!r}: must be a path, or {{path: ..., weight: ...}}")
    known = {field.name for field in dataclasses.fields(SourceConfig)}
    for key, value in entry.items():
        if key not in known:
            raise ConfigError(
                f"{option}.{key}={value}: no such key{did_you_mean(key, known)}; there are"
                f" {', '.join(sorted(known))}"
            )
    source = SourceConfig(**entry)
    if not isinstance(source.weight, (int, float)) or not source.weight > 0:
        raise ConfigError(f"{option}.weight={source.weight}: must be a number above 0")
    if source.limit is not None and (not isinstance(source.limit, int) or source.limit < 1):
        raise ConfigError(f"{option}.limit={source.limit}: must be a whole number above 0")
    return source


def runs_of(path: str) -> list[str]:
    """The run folder, or those of a sweep's points; empty: something else."""
    try:
        entries = open_store(path).list()
    except (ConfigError, OSError, ValueError):
        return []
    if INDEX in entries:
        return [point_uri(path, point["slug"]) for point in SweepFolder.view(path).points]
    return [path] if RUN in entries else []


def _of_run(run: str, source: SourceConfig, tokenizer: Any, model: str, option: str) -> Iterator[Document]:
    folder = RunFolder.view(run)
    made_by = folder.config["model"]
    same = made_by["name"] == model and made_by.get("tokenizer") is None
    rows = folder.read(["problem_id", "prompt", "prompt_tokens", "completion", "token_ids", "error"])
    if not len(rows):
        raise ConfigError(f"{option}={run}: the run has no rows yet")
    for row in rows.to_pylist():
        if not row["token_ids"]:
            continue  # a row that is only its error
        # As prompts are made: a chat template writes the special tokens itself.
        special = not tokenizer.chat_template
        prompt = tokenizer(row["prompt"], add_special_tokens=special)["input_ids"]
        if same and len(prompt) != row["prompt_tokens"]:
            raise ConfigError(
                f"{option}={run}: the prompt of problem {row['problem_id']} has"
                f" {row['prompt_tokens']} tokens there and {len(prompt)} here: {model} or its tokenizer has"
                " changed since"
            )
        completion = row["token_ids"]
        if not same:
            completion = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        yield Document(row["problem_id"], source.path, _ids(prompt + completion))


def _of_rows(rows: Iterator[Row], source: SourceConfig, tokenizer: Any, option: str) -> Iterator[Document]:
    for number, (where, row) in enumerate(rows):
        if isinstance(row, ConfigError):
            raise row
        id = row.get("id")
        tokens = _tokens(row, source, tokenizer, option, where)
        if tokens:
            yield Document(str(number if id is None else id), source.path, _ids(tokens))


def _tokens(row: dict[str, Any], source: SourceConfig, tokenizer: Any, option: str, where: str) -> list[int]:
    """The text of a row; empty: it has none."""
    text = source.text or next((name for name in TEXTS if name in row), None)
    chat = source.messages or next((name for name in CHATS if name in row), None)
    if source.messages is None and text is not None:
        value = column_value(row, text, f"{option}.text={text}", where)
        return tokenizer(as_text(value))["input_ids"] if value else []
    if chat is not None:
        messages = _messages(column_value(row, chat, f"{option}.messages={chat}", where), where)
        return _chat_tokens(messages, tokenizer, where)
    question = source.question or next((name for name in QUESTIONS if name in row), None)
    answer = source.answer or next((name for name in ANSWERS if name in row), None)
    if question is None or answer is None:
        raise ConfigError(
            f"{option}={source.path}: no text in {where}; columns: {', '.join(row)}; name the one with text"
            " by text=, a chat by messages=, or a pair by question= and answer="
        )
    asked = column_value(row, question, f"{option}.question={question}", where)
    said = column_value(row, answer, f"{option}.answer={answer}", where)
    if not asked or not said:
        return []
    pair = [{"role": "user", "content": as_text(asked)}, {"role": "assistant", "content": as_text(said)}]
    return _chat_tokens(pair, tokenizer, where)


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    """A chat in the form of OpenAI (role, content) or of ShareGPT (from, value)."""
    messages = []
    for item in value or []:
        role = item.get("role", item.get("from")) if isinstance(item, Mapping) else None
        content = item.get("content", item.get("value")) if isinstance(item, Mapping) else None
        if not isinstance(role, str) or not isinstance(content, str):
            raise ConfigError(f"{where}: every message of the chat must have a role and a text as content")
        messages.append({"role": _ROLES.get(role, role), "content": content})
    return messages


def _chat_tokens(messages: list[dict[str, str]], tokenizer: Any, where: str) -> list[int]:
    if not messages:
        return []
    if not tokenizer.chat_template:
        return tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # Jinja errors, raised by the template itself for chats that it does not know
        roles = ", ".join(message["role"] for message in messages)
        raise ConfigError(f"{where}: the model's chat template refuses a chat of {roles}: {error}") from error
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _ids(tokens: list[int]) -> Tensor:
    return torch.tensor(tokens, dtype=torch.int32)
