"""From options to figures of prefill gates: sets, held-out documents, and the measurement of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from seer_ray.config.errors import ConfigError
from seer_ray.config.measuring import GatesPromptsConfig
from seer_ray.config.selecting import ModelConfig, PrefillConfig, SelectorConfig
from seer_ray.corpora.documents import Document, parse_sources
from seer_ray.corpora.load import longest_documents
from seer_ray.fidelity.evaluate import (
    Evaluation,
    OnPass,
    check_length,
    check_names,
    counted,
    out_of_memory_explained,
)
from seer_ray.fidelity.needles import TASKS, NeedleFigure, measure_needles, needle_prompts
from seer_ray.fidelity.prompt_costs import share_density
from seer_ray.fidelity.prompt_passes import ALLOCATED, REFERENCES, SHARED, Gate, contenders_of
from seer_ray.fidelity.prompts import PromptFigures, measure_prompts, prompts_of
from seer_ray.models.allocation import PROMPTS, Allocation, allocation_of
from seer_ray.models.gate_config import gated_layers
from seer_ray.models.gates import load_gates
from seer_ray.models.load import load_model
from seer_ray.models.patch import attention_shape
from seer_ray.models.prefill_gates import load_prefill_gates, read_prefill_settings

PREFILL, DECODE = "prefill", "decode"
"""Labels of the prefill gates, and of the gates of decoding averaged over the rows of a block."""
BLOCK_SIZE = 64


@dataclass(frozen=True)
class PromptEvaluation(Evaluation):
    """What was measured, and on what."""

    figures: PromptFigures
    needles: list[NeedleFigure]
    allocation: Allocation | None
    """How query heads share a density, where that was found."""

    def table(self) -> list[dict[str, Any]]:
        """All figures by length, density and selector."""
        keys = ("positions", "budget", "selector")
        losses = {tuple(row[key] for key in keys): row for row in self.figures.loss_table()}
        none = dict.fromkeys(("perplexity", "dense", "more"))
        table = []
        for row in self.figures.table():
            loss = losses.get(tuple(row[key] for key in keys), {})
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
    check_names("selectors", config.selectors, (*REFERENCES, SHARED))
    check_names("needles", config.needles, TASKS)
    if config.allocate and config.model.prefill_gates is None:
        raise ConfigError(f"allocate={config.allocate}: prefill gates share a density; name some")
    if SHARED in config.selectors and config.model.prefill_gates is None:
        raise ConfigError(f"selectors: {SHARED} is a way to read prefill gates; name some")
    if config.lengths and max(config.lengths) > config.length:
        raise ConfigError(
            f"lengths={config.lengths}: documents are cut at length={config.length}; set that to the longest"
        )
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
    if SHARED in config.selectors:
        gates[SHARED] = gates[PREFILL]
    references = [name for name in config.selectors if name != SHARED]
    documents = longest_documents(config, loaded, block)
    training: list[Document] = []
    if config.allocate:
        training = longest_documents(replace(config, documents=config.allocate), loaded, block, False)
    allocation = _of_gates(config.model)
    if training or allocation is not None:
        gates[ALLOCATED] = gates[PREFILL]
    prompts = [
        prompt
        for task in config.needles
        for prompt in needle_prompts(task, config.length, config.needle_prompts, loaded.tokenizer)
    ]
    runs = (len(gates) + len(references)) * len(config.densities) if config.outputs else 0
    cut = sum(1 for _ in prompts_of(documents, config.lengths))
    sharing = len(training) * (1 + sum(gate is not None for gate in gates.get(PREFILL, ())))
    count = counted(sharing + cut * (1 + runs) + len(prompts), progress)
    what: Any = (config.densities, gates, references)
    how: Any = {"block": block, "sink": config.sink, "progress": count}
    with out_of_memory_explained(config, [*documents, *training], loaded.device):
        if training:
            of_layers = contenders_of({PREFILL: gates[PREFILL]}, (), attention_shape(loaded.model), block)
            allocation = share_density(
                loaded.model, training, of_layers[PREFILL], last_blocks=config.last_blocks, **how
            )
        figures = measure_prompts(
            loaded.model,
            documents,
            *what,
            last_blocks=config.last_blocks,
            outputs=config.outputs,
            lengths=config.lengths,
            allocation=allocation,
            **how,
        )
        needles = measure_needles(loaded.model, prompts, *what, allocation=allocation, **how)
    if not figures.layers:
        raise ConfigError(
            f"length={config.length}: no document has rows that would leave something out at densities="
            f"{config.densities}; set a larger length, or smaller densities"
        )
    return PromptEvaluation(figures, sources, block, documents, needles, allocation if training else None)


def _of_gates(model: ModelConfig) -> Allocation | None:
    """How query heads share a density as the prefill gates say it."""
    asked = SelectorConfig(prefill=PrefillConfig(density=1.0))
    return allocation_of(asked, None, model.prefill_gates).get(PROMPTS)
