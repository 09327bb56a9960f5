"""What a job reads: it goes on with the same models, tokenizers and data, or not at all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.modules import import_named
from seer_ray.config.options import ModelConfig, RunConfig
from seer_ray.config.selecting import AUTO
from seer_ray.config.selectors import SELECTORS
from seer_ray.config.works import is_dense, needs_gates, selectors_of
from seer_ray.models.content import digest
from seer_ray.models.identity import COMMIT, Content, Contents, contents, differences, find_tokenizer
from seer_ray.models.source import find_allocation, find_prompt_allocation
from seer_ray.models.tokenizer_files import check_tokenizer_files
from seer_ray.results.base import RESTORE, Folder

FILE = "sources.json"
VERSION = 1
"""Of the digests; those of another one are not compared."""


@dataclass(frozen=True)
class Sources:
    """A model as all processes of a job are to read it."""

    model: ModelConfig
    """Of the hub, with the commit."""
    contents: Contents


def look(model: ModelConfig, *folders: Folder, gated: bool = True, prefill: bool = True) -> Sources:
    """What is behind the options of a model, before anything is started.

    Args:
        model: Of the options.
        folders: Of jobs that read it. A commit of the hub that one has noted is the one to go on with.
        gated: Whether gates are read.
        prefill: Whether prefill gates are.

    Raises:
        ConfigError: It is not there, or its tokenizer cannot encode.
    """
    for folder in folders:
        if commit := noted(folder).get("model.name", {}).get(COMMIT):
            model = replace(model, revision=commit)
            break
    if not gated:
        model = replace(model, gates=None)
    if not prefill:
        model = replace(model, prefill_gates=None)
    found = contents(model)
    if commit := found["model.name"].get(COMMIT):
        model = replace(model, revision=commit)
    tokenizer = find_tokenizer(model)
    if tokenizer.is_dir():
        name = "name" if model.tokenizer is None else "tokenizer"
        check_tokenizer_files(tokenizer, f"model.{name}={getattr(model, name)}")
    return Sources(model, found)


def own_contents(config: RunConfig) -> Contents:
    """The modules of selectors of the user's own, and the allocation that is named: what they say decides
    what the rows are."""
    own = sorted(name for name in selectors_of(config.selector, config.plan) if name not in SELECTORS)
    found: dict[str, str] = {}
    for name in own:
        found |= file_of(import_named(name, "selector.name", "class"))
    shared = {
        "selector.allocation": find_allocation(config.selector, None),
        "selector.prefill.allocation": find_prompt_allocation(config.selector.prefill, None),
    }
    return ({"selector.name": found} if found else {}) | {
        option: {file.name: digest(file)} for option, file in shared.items() if file
    }


def reads_gates(config: RunConfig) -> bool:
    """Whether a run reads what is in the folder of gates: those, or only how a budget is shared."""
    selector = config.selector
    return needs_gates(selector, config.plan) or (
        selector.allocation == AUTO
        and not is_dense(selector, config.plan)
        and find_allocation(selector, config.model.gates) is not None
    )


def uniform_note(config: RunConfig) -> str | None:
    """What a person is told of gates without an allocation; None: there is nothing to tell."""
    selector = config.selector
    asked = selector.allocation == AUTO and not selector.amounts
    if not asked or not needs_gates(selector, config.plan) or find_allocation(selector, config.model.gates):
        return None
    return (
        f"model.gates={config.model.gates} do not say how heads share a budget: each reads {selector.budget} "
        "tokens; seer-ray gates shares finds out which need more"
    )


def file_of(thing: Any) -> dict[str, str]:
    """Name and digest of the file that a class or function is from, if it is from one."""
    file = sys.modules[thing.__module__].__file__
    return {Path(file).name: digest(Path(file))} if file else {}


def noted(folder: Folder) -> Contents:
    """What a job's folder says that it was begun with; empty: nothing was made yet, or nothing is known.

    Raises:
        ConfigError: The note is torn.
    """
    said: Any = folder.read_json(FILE)
    if said is None or folder.unused:
        return {}
    try:
        version, sources = said["version"], {name: dict(content) for name, content in said["sources"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"{folder.store.locate(FILE)}: torn; {RESTORE}, or delete it") from None
    return sources if version == VERSION else {}


def refuse_other_sources(folder: Folder, now: Mapping[str, Content]) -> None:
    """Compares what is behind the options of a job with what is noted in its folder.

    Args:
        folder: Of the job.
        now: Option -> content.

    Raises:
        ConfigError: Names what holds something else since the job was begun.
    """
    if wrong := differences(now, noted(folder)):
        more = f" and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
        raise ConfigError(
            f"{folder.uri}: was begun with other files, digests now and then: {wrong[0]}{more}; "
            "restore them, or give the job another name"
        )


def note_sources(folder: Folder, now: Mapping[str, Content]) -> None:
    """Notes what is behind the options of a job, once nothing speaks against it.

    Args:
        folder: Open to write.
        now: Option -> content, as far as it is known the same as noted.
    """
    if now != (then := noted(folder)):
        folder.write_json(FILE, {"version": VERSION, "sources": {**now, **then}})
