"""From options to figures of prefill gates: sets, held-out documents, and the measurement of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.training import GatesPromptsConfig
from seer_ray.corpora.documents import Document, parse_sources
from seer_ray.corpora.load import longest_documents
from seer_ray.fidelity.evaluate import OnPass, check_length, out_of_memory_explained
from seer_ray.fidelity.prompts import REFERENCES, Gate, PromptFigures, measure_prompts
from seer_ray.models.gate_config import gated_layers
from seer_ray.models.gates import load_gates
from seer_ray.models.load import load_model
from seer_ray.models.prefill_gates import load_prefill_gates, read_prefill_settings

PREFILL, DECODE = "prefill", "decode"
"""Labels of the prefill gates, and of the gates of decoding averaged over the rows of a block."""
BLOCK_SIZE = 64


@dataclass(frozen=True)
class PromptEvaluation:
    """What was measured, and on what."""

    figures: PromptFigures
    gates: dict[str, str]
    """Label -> where the set was."""
    block_size: int
    documents: list[Document]

    @property
    def tokens(self) -> int:
        return sum(len(document.tokens) for document in self.documents)

    def table(self) -> list[dict[str, Any]]:
        """All figures by density and selector."""
        losses = {(row["budget"], row["selector"]): row for row in self.figures.loss_table()}
        none = dict.fromkeys(("perplexity", "dense", "more"))
        table = []
        for row in self.figures.table():
            loss = losses.get((row["budget"], row["selector"]), {})
            table.append(row | none | {name: loss[name] for name in none if name in loss})
        return table


def prompt_sets(config: GatesPromptsConfig) -> dict[str, str]:
    """Label -> source of each gate set."""
    named = {PREFILL: config.model.prefill_gates, DECODE: config.model.gates}
    return {label: source for label, source in named.items() if source is not None}


def check_prompts(config: GatesPromptsConfig) -> None:
    """What can be checked before anything is loaded.

    Raises:
        ConfigError: names the option.
    """
    parse_sources(config.data)
    for name in config.selectors:
        if name not in REFERENCES:
            near = did_you_mean(name, REFERENCES)
            raise ConfigError(f"selectors: {name!r} must be one of {', '.join(REFERENCES)}{near}")
    if not config.densities or not all(0 < density <= 1 for density in config.densities):
        raise ConfigError(
            f"densities={config.densities}: must be shares above 0, 1 at most, such as [0.5,0.3]"
        )
    if not prompt_sets(config) and not config.selectors:
        raise ConfigError("model.prefill_gates, selectors: nothing to measure; name gates or a selector")


def evaluate_prompts(config: GatesPromptsConfig, progress: OnPass = lambda *_: None) -> PromptEvaluation:
    """All that ``seer-ray gates prompts`` measures.

    Raises:
        ConfigError: an option is wrong, or the model, the gates or the data cannot be had or do not fit
            together.
    """
    check_prompts(config)
    sources, block = prompt_sets(config), config.block_size or BLOCK_SIZE
    if PREFILL in sources:
        found = read_prefill_settings(sources[PREFILL]).block_size
        if config.block_size not in (None, found):
            raise ConfigError(f"block_size={config.block_size}: the prefill gates have {found}; leave it out")
        block = found
    loaded = load_model(config.model)
    check_length(config, loaded, block)
    gated_layers(None, loaded.hf_config)
    gates: dict[str, Sequence[Gate | None]] = {}
    if PREFILL in sources:
        gates[PREFILL] = load_prefill_gates(
            sources[PREFILL], loaded.hf_config, block, torch.float32, loaded.device
        )
    if DECODE in sources:
        gates[DECODE] = load_gates(sources[DECODE], loaded.hf_config, block, torch.float32, loaded.device)
    documents = longest_documents(config, loaded, block)
    runs = len(gates) + len(config.selectors) if config.outputs else 0
    total, started = len(documents) * (1 + runs * len(config.densities)), 0

    def count(text: str) -> None:
        nonlocal started
        progress(started, total, text)
        started += 1

    with out_of_memory_explained(config, documents, loaded.device):
        figures = measure_prompts(
            loaded.model,
            documents,
            config.densities,
            gates,
            config.selectors,
            block=block,
            sink=config.sink,
            last_blocks=config.last_blocks,
            outputs=config.outputs,
            progress=count,
        )
    if not figures.layers:
        raise ConfigError(
            f"length={config.length}: no document has rows that would leave something out at densities="
            f"{config.densities}; set a larger length, or smaller densities"
        )
    return PromptEvaluation(figures, sources, block, documents)
