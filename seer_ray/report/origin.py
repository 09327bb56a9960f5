"""How what a page shows was made: command, model, sampling, prompt, data, code, host and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seer_ray.analysis.words import count
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity
from seer_ray.config.options import JobConfig
from seer_ray.results import provenance
from seer_ray.results.base import Folder
from seer_ray.results.folder import GRADED

SOURCES, DATASET = "sources.json", "dataset.json"
"""Notes of a job's driver: digests of what it reads, and of its problems."""
LONGEST = 400
"""Characters of a value."""


@dataclass(frozen=True)
class Fact:
    """Something that holds for all jobs of a page, or, with other words, for some of them."""

    label: str
    values: tuple[tuple[str, str], ...]
    """(text, names of the jobs of which it is true; empty: of all)."""
    code: bool = False
    """To be set as typed."""


def origin(folders: Mapping[str, Folder], kind: type[JobConfig]) -> list[Fact]:
    """What is known of it, in the order of a page.

    Args:
        folders: by name of the job
        kind: of job
    """
    said = {name: dict(_facts(folder, kind)) for name, folder in folders.items()}
    labels = dict.fromkeys(label for facts in said.values() for label in facts)
    return [_merged(label, {name: facts.get(label, "") for name, facts in said.items()}) for label in labels]


def _merged(label: str, texts: Mapping[str, str]) -> Fact:
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        if text:
            names.setdefault(text, []).append(name)
    whole = len(names) == 1
    values = tuple((text, "" if whole else ", ".join(some)) for text, some in names.items())
    return Fact(label, values, label in ("Command", "Prompt"))


def _facts(folder: Folder, kind: type[JobConfig]) -> Iterable[tuple[str, str]]:
    options = Identity(folder.config, kind).deciding
    sessions, dataset = provenance.noted(folder), _note(folder, DATASET)
    found = {
        "Command": "\n".join(dict.fromkeys(session["command"] for session in sessions)),
        "Model": _model(options, _note(folder, SOURCES).get("sources", {})),
        "Gates": _gates(options),
        "Sampling": _sampling(options),
        "Prompt": _prompt(options),
        "Grader": _note(folder, GRADED).get("task", {}).get("grader", options.get("task.grader")),
        "Data": _data(options, dataset),
        "Code": _code(sessions),
        "Host": _distinct(f"{session['host']}, {session['system']}" for session in sessions),
        "Begun": _began(sessions),
    }
    return ((label, str(text)[:LONGEST]) for label, text in found.items() if text)


def _note(folder: Folder, name: str) -> dict[str, Any]:
    """A small file of the folder; a torn one is no reason to have no page."""
    try:
        found = folder.read_json(name)
    except ConfigError:
        return {}
    return found if isinstance(found, dict) else {}


def _model(options: Mapping[str, Any], sources: Mapping[str, Any]) -> str:
    if not (name := options.get("model.name")):
        return ""
    content = sources.get("model.name", {})
    if commit := content.get("commit") or options.get("model.revision"):
        return f"{name}, revision {commit}"
    files = [
        f"{file} {digest}" for file, digest in content.items() if file.endswith((".safetensors", ".gguf"))
    ]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{name}, {files[0]}{more}" if files else str(name)


def _gates(options: Mapping[str, Any]) -> str:
    """Those that are measured, or those of the model."""
    named = {name: value for name, value in options.items() if name.startswith("sets.")}
    if named:
        return "\n".join(f"{name.removeprefix('sets.')}: {value}" for name, value in named.items())
    sets = options.get("sets") or options.get("model.gates") or ""
    return "\n".join(map(str, sets)) if isinstance(sets, list) else str(sets)


def _sampling(options: Mapping[str, Any]) -> str:
    given = {
        name.removeprefix("sampling."): value
        for name, value in options.items()
        if name.startswith("sampling.") and value is not False and value not in (None, [], {}, "")
    }
    given |= {name: options[name] for name in ("samples", "seed") if name in options}
    return ", ".join(f"{name}={value}" for name, value in given.items())


def _prompt(options: Mapping[str, Any]) -> str:
    parts = (("system: ", options.get("task.system")), ("", options.get("task.prompt")))
    return "\n".join(f"{who}{text}" for who, text in parts if text)


def _data(options: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    source = options.get("task.data") or options.get("data") or options.get("task.generator.name")
    if isinstance(source, Mapping) or source is None:
        source = options.get("data.text") or options.get("data.generator")
    parts = [
        str(source) if source else "",
        count(int(dataset["problems"]), "problem") if "problems" in dataset else "",
        f"digest {dataset['digest']}" if "digest" in dataset else "",
    ]
    return ", ".join(filter(None, parts))


def _code(sessions: Sequence[Mapping[str, Any]]) -> str:
    def said(session: Mapping[str, Any]) -> str:
        versions = [f"{name} {version}" for name, version in session["versions"].items()]
        commit = f", commit {session['commit']}" if session["commit"] else ""
        return f"{', '.join(versions)}, Python {session['python']}{commit}"

    return _distinct(map(said, sessions))


def _began(sessions: Sequence[Mapping[str, Any]]) -> str:
    if not sessions:
        return ""
    first = str(sessions[0]["began"]).replace("T", " ").replace("+00:00", " UTC")
    return first + (f", in {len(sessions)} sessions" if len(sessions) > 1 else "")


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
