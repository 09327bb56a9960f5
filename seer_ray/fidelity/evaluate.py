"""From options to figures: gate sets, held-out documents, and the measurement of both."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import torch

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.measuring import GatesEvalConfig, HeldOutConfig
from seer_ray.config.selecting import SelectorConfig
from seer_ray.corpora.documents import Document, parse_sources
from seer_ray.corpora.load import longest_documents
from seer_ray.fidelity.figures import Figures
from seer_ray.fidelity.quality import BEST, REFERENCES, SHARING, Rows, measure
from seer_ray.fidelity.settings import Setting, settings_of
from seer_ray.models.allocation import allocation_of
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import gated_layers
from seer_ray.models.gates import load_gates, read_settings
from seer_ray.models.load import LoadedModel, load_model

GATES = "seer"
"""Label of the only gate set."""
SHARED = "shared"
"""Behind the label of a budget that an allocation shares."""
BLOCK_SIZE = 64

OnPass = Callable[[int, int, str], None]
"""Told (passes done, passes in all, what is being computed)."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and on what."""

    figures: Figures
    gates: dict[str, str]
    """Label -> where the set was."""
    block_size: int
    documents: list[Document]

    @property
    def tokens(self) -> int:
        return sum(len(document.tokens) for document in self.documents)


def evaluate(config: GatesEvalConfig, progress: OnPass = lambda *_: None) -> Evaluation:
    """All that ``seer-ray gates eval`` measures.

    Raises:
        ConfigError: an option is wrong, or the model, the gates or the data cannot be had or do not fit
            together.
    """
    settings = check_evaluation(config)
    sources = gate_sources(config)
    settings = [one for setting in settings for one in (setting, *_shared(config, setting, sources))]
    block = block_size(config, sources)
    loaded = load_model(config.model)
    check_model(config, loaded, block, settings)
    gates: dict[str, Sequence[AttnGate | None]] = {
        label: load_gates(source, loaded.hf_config, block, torch.float32, loaded.device)
        for label, source in sources.items()
    }
    documents = longest_documents(config, loaded, block)
    runs = sum(
        setting.allocation is None or label in setting.allocation
        for label in {*gates, *config.selectors} - {BEST}
        for setting in settings
        if config.outputs
    )
    with out_of_memory_explained(config, documents, loaded.device):
        figures = measure(
            loaded.model,
            documents,
            settings,
            gates,
            config.selectors,
            block_size=block,
            sink=config.sink,
            dense_layers=config.dense_layers,
            rows=Rows(config.skip, config.stride, config.beyond),
            outputs=config.outputs,
            progress=counted(len(documents) * (1 + runs), progress),
        )
    return Evaluation(figures, sources, block, documents)


def counted(total: int, progress: OnPass) -> Callable[[str], None]:
    """What is told of each pass as it begins; tells how many are done, of how many."""
    passes = itertools.count()
    return lambda text: progress(next(passes), total, text)


@contextlib.contextmanager
def out_of_memory_explained(
    config: HeldOutConfig, documents: Sequence[Document], device: torch.device
) -> Iterator[None]:
    """Raises ConfigError in place of running out of memory: with what would fit."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        longest = max(len(document.tokens) for document in documents)
        raise ConfigError(
            f"length={config.length}: out of memory on {device} with a document of {longest} tokens;"
            f" set length={longest // 2}, or model.dtype=bfloat16"
        ) from None


def check_evaluation(config: GatesEvalConfig) -> list[Setting]:
    """What can be checked before anything is loaded; what layers may read.

    Raises:
        ConfigError: names the option.
    """
    parse_sources(config.data)
    check_names("selectors", config.selectors, REFERENCES)
    settings = settings_of(config.budgets, config.settings, config.sink)
    sharing = [name for name in config.selectors if name in SHARING]
    if (asked := [setting for setting in settings if setting.shares]) and len(sharing) < len(
        config.selectors
    ):
        without = ", ".join(name for name in config.selectors if name not in SHARING)
        raise ConfigError(
            f"{asked[0].option}: asks for shares of the scores, and no shares come from {without};"
            f" set selectors=[{','.join(sharing)}]"
        )
    if not gate_sources(config) and not config.selectors:
        raise ConfigError("sets, selectors: nothing to measure; name a gate set or a selector")
    return settings


def check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raises ConfigError: one is not among those that are known."""
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"{option}: {name!r} must be one of {', '.join(known)}{near}")


def gate_sources(config: GatesEvalConfig) -> dict[str, str]:
    """Label -> folder, file or hub id of each gate set.

    A single set is called ``seer``; several are called by the last part of their path that tells something.

    Raises:
        ConfigError: no paths, or labels that are taken.
    """
    option = config.sets if config.sets is not None else config.model.gates
    if option is None:
        return {}
    if isinstance(option, Mapping):
        named = {str(label): source for label, source in option.items()}
    else:
        entries = list(option) if isinstance(option, (list, tuple)) else [option]
        if bad := [entry for entry in entries if not isinstance(entry, str)]:
            raise ConfigError(f"sets={bad[0]!r}: must be a folder, a hub id, a list, or {{label: folder}}")
        short = [_short(entry) for entry in entries]
        labels = short if len(set(short)) == len(short) else entries
        named = dict(zip([GATES] if len(entries) == 1 else labels, entries, strict=True))
    for label, source in named.items():
        if not isinstance(source, str) or not source:
            raise ConfigError(f"sets.{label}={source!r}: must be a folder, a .pth file or a hub id")
        if label in REFERENCES:
            raise ConfigError(f"sets.{label}: is the name of a selector; call the set something else")
    return named


def _shared(config: GatesEvalConfig, setting: Setting, sources: Mapping[str, str]) -> list[Setting]:
    """A plain budget once more, shared as the allocation of each contender says."""
    if setting.option != "selector":
        return []
    asked = SelectorConfig(name=GATES, allocation=config.allocation)
    by_set = {label: allocation_of(asked, source) for label, source in sources.items()}
    found = {label: own[GATES] for label, own in by_set.items() if GATES in own}
    others = next(iter(by_set.values())) if by_set else allocation_of(asked, None)
    found |= {name: others[name] for name in config.selectors if name in others}
    return [replace(setting, label=f"{setting.label} {SHARED}", allocation=found)] if found else []


def _short(source: str) -> str:
    parts = [part for part in PurePosixPath(source).parts if part != "gates"]
    return parts[-1] if parts else source


def block_size(config: GatesEvalConfig, sources: Mapping[str, str]) -> int:
    """That of the gates, which must agree, else that of the options.

    Raises:
        ConfigError: they do not agree.
    """
    sizes = {label: read_settings(source).block_size for label, source in sources.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{label} {size}" for label, size in sizes.items())
        raise ConfigError(f"sets: gates of different block sizes cannot be compared at one budget: {listed}")
    found = next(iter(sizes.values()), config.block_size or BLOCK_SIZE)
    if config.block_size not in (None, found):
        raise ConfigError(f"block_size={config.block_size}: the gates have {found}; leave it out")
    return found


def check_model(
    config: GatesEvalConfig, loaded: LoadedModel, block: int, settings: Sequence[Setting]
) -> None:
    """What options demand of the model.

    Raises:
        ConfigError: it has not so many layers or so long a context, or none that selects.
    """
    check_length(config, loaded, block)
    gated_layers(None, loaded.hf_config)
    layers = loaded.hf_config.num_hidden_layers
    if config.dense_layers > layers:
        raise ConfigError(f"dense_layers={config.dense_layers}: the model has {layers} layers")
    for setting in settings:
        setting.limits(config.length, layers, block, loaded.hf_config.num_key_value_heads)


def check_length(config: HeldOutConfig, loaded: LoadedModel, block: int) -> None:
    """Raises ConfigError: the model or the gates have no use for documents of that length."""
    if config.length > loaded.max_context:
        raise ConfigError(f"length={config.length}: the model's context is {loaded.max_context} tokens")
    if config.length < 2 * block:
        raise ConfigError(f"length={config.length}: must be at least two blocks, {2 * block} tokens")


def flat(rows: Sequence[Mapping[str, Any]], values: Sequence[str]) -> dict[str, float]:
    """Rows of a table as metrics by name: ``mass/1_8/seer``, ``mass/1_8/seer/beyond_4096``."""
    metrics: dict[str, float] = {}
    for row in rows:
        parts = [row["budget"], row["selector"]]
        if row["positions"] != "all":
            parts.append(row["positions"].replace(">", "beyond_"))
        name = "/".join("".join(c if c.isalnum() or c in "_-." else "_" for c in part) for part in parts)
        known = {value: row[value] for value in values if row.get(value) is not None}
        metrics |= {f"{value}/{name}": x for value, x in known.items() if math.isfinite(x)}
    return metrics
