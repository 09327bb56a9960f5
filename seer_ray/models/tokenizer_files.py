"""Whether a tokenizer can be had, told from its files: before anything starts, and without transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError, first_line

VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
"""Files of which a tokenizer has at least one."""
PROBES = ("a", "1", " ", "A")
"""Texts of which every tokenizer knows one."""
SETTINGS = ("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")
REMEDY = "; name another with model.tokenizer"


def check_tokenizer_files(folder: Path, option: str) -> None:
    """That a folder has a tokenizer that can encode.

    Args:
        folder: of a model or a tokenizer.
        option: ``model.name=...`` or ``model.tokenizer=...``, for errors.

    Raises:
        ConfigError: it has none, or a torn one.
    """
    settings = {name: _read(folder / name, option) for name in SETTINGS if (folder / name).is_file()}
    if "auto_map" in settings.get("tokenizer_config.json", {}):
        return  # code of its own, with files of its own
    if not any((folder / name).is_file() for name in VOCABULARIES) and not any(folder.glob("*.tiktoken")):
        raise ConfigError(
            f"{option}: the folder has no tokenizer (none of {', '.join(VOCABULARIES)}){REMEDY}"
        )
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # torn files: whatever the library raises
            raise ConfigError(f"{option}: cannot load its tokenizer ({first_line(error)}){REMEDY}") from error
        check_encodes(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, option)


def check_encodes(encode: Callable[[str], list[int]], option: str) -> None:
    """That a tokenizer makes tokens of text.

    Raises:
        ConfigError: it makes none of any.
    """
    if not any(encode(text) for text in PROBES):
        raise ConfigError(f"{option}: its tokenizer makes no tokens of text, its vocabulary is empty{REMEDY}")


def _read(file: Path, option: str) -> Any:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: cannot read {file.name}: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{option}: cannot read {file.name}: must hold an object")
    return found
