"""What the files hold that options name: so that a model is the same one after a restart and on every node.

Looks at files only; imports no torch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models.content import INDEX, digest, weight_files
from seer_ray.models.source import ALLOCATION, PREFILL_GATES, find, find_gates

Content = dict[str, str]
"""Name of a file -> digest of what it holds; of the hub ``{"commit": ...}``."""
Contents = dict[str, Content]
"""Option -> content of what it names."""

COMMIT = "commit"
MODEL_FILES = ("config.json", "generation_config.json", "hf_quant_config.json", INDEX)
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*",
)


def contents(model: ModelConfig) -> Contents:
    """What is behind ``model.name``, ``model.tokenizer`` and ``model.gates``, as far as they are set.

    Of weights that are not here, only elsewhere, nothing is known.

    Raises:
        ConfigError: it is not there.
    """
    return dict(_contents(model))


def differences(now: Mapping[str, Content], then: Mapping[str, Content]) -> list[str]:
    """What another content has that is not the same, each as ``option: file (digest, digest)``."""
    found = []
    for option in [name for name in now if name in then]:
        here, there = now[option], then[option]
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                found.append(f"{option}: {name} ({_said(here.get(name))}, {_said(there.get(name))})")
    return found


def verify(what: str, look: Callable[[], Contents], expected: Mapping[str, Content]) -> None:
    """That this machine has the same files as the one where ``expected`` was made.

    Args:
        what: option and value, for errors.
        look: what is here.
        expected: what is there.

    Raises:
        ConfigError: names the node and what is missing or differs.
    """
    node = socket.gethostname()
    try:
        found = look()
    except ConfigError as error:
        remedy = "but where the job was started it is; put it on a disk that all nodes share"
        raise ConfigError(f"node {node}: {error}; {remedy}") from None
    for option, content in found.items():
        there = expected.get(option, {})
        if option == "model.name" and not _has_weights(
            there
        ):  # where the job was started, small files are all that is needed
            content = {name: value for name, value in content.items() if name in there}
        if wrong := differences({option: content}, {option: there}):
            more = f" and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
            raise ConfigError(
                f"{what}: node {node} has other files than where the job was started, digests here and "
                f"there: {wrong[0]}{more}; put the same ones on all nodes"
            )


def _contents(model: ModelConfig) -> Iterator[tuple[str, Content]]:
    path = find(model.name, f"model.name={model.name}", model.revision)
    yield "model.name", _model(path, model)
    if model.tokenizer is not None:
        path = find_tokenizer(model)
    if path.is_dir():
        yield "model.tokenizer", _commit(path) or _files(path, TOKENIZER_FILES)
    if model.gates is not None:
        gates = find_gates(model.gates, f"model.gates={model.gates}")
        yield (
            "model.gates",
            _commit(gates.parent) or _files(gates.parent, ("config.json", gates.name, ALLOCATION)),
        )
    if model.prefill_gates is not None:
        gates = find_gates(model.prefill_gates, f"model.prefill_gates={model.prefill_gates}", PREFILL_GATES)
        yield (
            "model.prefill_gates",
            _commit(gates.parent) or _files(gates.parent, ("config.json", gates.name, ALLOCATION)),
        )


def find_tokenizer(model: ModelConfig) -> Path:
    """The folder of the tokenizer, or the GGUF file that it is in.

    Raises:
        ConfigError: there is none.
    """
    if model.tokenizer is None:
        return find(model.name, f"model.name={model.name}", model.revision)
    return find(model.tokenizer, f"model.tokenizer={model.tokenizer}")


def _model(path: Path, model: ModelConfig) -> Content:
    if path.is_file():
        return {path.name: digest(path)}
    if commit := _commit(path):
        return commit
    found = _files(path, (*MODEL_FILES, *(("*.py",) if model.trust_remote_code else ())))
    try:
        weights = [file for file in weight_files(path) if file.is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        weights = []  # a torn index: what loads the weights says so
    return found | {file.name: digest(file) for file in weights}


def _files(folder: Path, patterns: tuple[str, ...]) -> Content:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return {str(file.relative_to(folder)): digest(file) for file in files}


def _commit(folder: Path) -> Content | None:
    """Of a folder in the cache of the hub: there, a commit is a content."""
    cache = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return {COMMIT: folder.name} if cache else None


def _has_weights(content: Content) -> bool:
    return COMMIT in content or any(name.endswith((".safetensors", ".gguf", ".pth")) for name in content)


def _said(value: str | None) -> str:
    return value or "none"
