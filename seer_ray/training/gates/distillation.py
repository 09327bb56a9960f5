"""Gates for a frozen model as a training objective: data, losses, held-out figures, the folder of gates."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.config.measuring import MEANS, PRICE_LENGTH
from seer_ray.config.options import ModelConfig
from seer_ray.config.training import DistillConfig
from seer_ray.corpora.documents import parse_sources
from seer_ray.corpora.load import load_corpora, longest
from seer_ray.corpora.mixture import Mixture
from seer_ray.corpora.pack import Pack, Share
from seer_ray.fidelity.budget import Budget
from seer_ray.fidelity.division import share
from seer_ray.fidelity.figures import ALL
from seer_ray.fidelity.prompts import measure_prompts
from seer_ray.fidelity.quality import Rows, measure, selectors_of
from seer_ray.fidelity.settings import Setting
from seer_ray.models.allocation import allocation_text
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import gated_layers
from seer_ray.models.gates import save_gates
from seer_ray.models.load import DTYPES, LoadedModel, load_model
from seer_ray.models.patch import attention_shape
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.prefill_gates import save_prefill_gates
from seer_ray.models.source import ALLOCATION
from seer_ray.training.gates.card import write_card
from seer_ray.training.gates.losses import GateTraining
from seer_ray.training.gates.memory import MemoryPlan, is_out_of_memory, out_of_memory, plan_memory
from seer_ray.training.gates.shapes import Shape, begun_with, initial_gates

SEER = "seer"
SHORTEST = 16
"""Blocks of a document that heads can share a budget of."""


class Batch(NamedTuple):
    """What one update learns from."""

    packs: list[Pack]
    share: Share


class Distillation:
    """A ``seer_ray.training.loop.Objective``.

    Args:
        config: all options of the job.
        device: where to train.

    Raises:
        ConfigError: the model, the gates to begin with, or the data cannot be had or do not fit together.
    """

    def __init__(self, config: DistillConfig, device: str = "auto") -> None:
        self.config = config
        check_distill(config)
        self.loaded = load_teacher(config.model, device)
        self.gates, self.shape = initial_gates(config, self.loaded)
        model = self.loaded.model
        layers = gated_layers(config.gates.layers, model.config)
        if missing := [layer for layer in layers if self.gates[layer] is None]:
            raise ConfigError(
                f"gates.layers={config.gates.layers or 'all'}: {'='.join(map(str, begun_with(config)))} has"
                f" no gate in layer {missing[0]}; name only layers that have one, or begin without"
            )
        self.corpora = load_corpora(config, self.loaded, self.shape.block_size)
        self.training = GateTraining(model, self.gates, layers, config.objective)
        self.module: nn.Module = self.training.module
        parts = [(c.train, s.weight) for c, s in zip(self.corpora, parse_sources(config.data), strict=True)]
        self.mixture = Mixture(parts, config.train.length, self.shape.block_size, config.train.seed)
        self.held_out = longest((c.held_out for c in self.corpora), config.evaluation.documents)

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """This rank's packs, and the share of their rows that the step learns from."""
        rows = rows_per_step(self.config, self.config.train.length)
        if rows % world:
            raise ConfigError(
                f"train.batch_tokens={self.config.train.batch_tokens}: holds {rows} rows of train.length="
                f"{self.config.train.length} tokens, which {world} workers cannot share evenly; set"
                f" {-(-rows // world) * world * self.config.train.length}"
            )
        number, part = divmod(step, self.config.objective.updates)
        packs = [self.mixture.row(number * rows + row) for row in range(rank, rows, world)]
        return Batch(packs, Share(number, part, self.config.objective.updates))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """See ``GateTraining.loss``."""
        with self._out_of_memory_explained():
            return self.training.loss(batch.packs, batch.share)

    def evaluate(self) -> dict[str, float]:
        """On the longest held-out documents: the distillation loss, and what a budget keeps.

        Returns:
            ``loss`` and ``kl/layer_N``; for each budget, averaged over layers and as ``.../layer_N``:
            ``recall`` of the blocks that the oracle reads, and ``of_oracle``, the attention mass kept as a
            share of what the oracle keeps.
        """
        if not self.held_out:
            return {}
        packs = [Pack.of([document.tokens], self.training.device) for document in self.held_out]
        means = self.training.distill(packs)
        return {"loss": means.pop("distill"), **means, **self._kept()}

    def _kept(self) -> dict[str, float]:
        evaluation = self.config.evaluation
        if self.training.prompts:
            return self._kept_of_prompts()
        settings = [Setting.of(text, "evaluation.budgets") for text in evaluation.budgets]
        if not settings:
            return {}
        with torch.autocast(self.training.device.type, enabled=False):
            figures = measure(
                self.loaded.model,
                self.held_out,
                settings,
                {SEER: [gate if isinstance(gate, AttnGate) else None for gate in self.gates]},
                block_size=self.shape.block_size,
                rows=Rows(first=self.config.objective.skip, stride=evaluation.stride),
                outputs=False,
            )
        found: dict[str, float] = {}
        for by in ((), ("layer",)):
            for row in figures.layer_table(*by):
                if row["selector"] == SEER and row["positions"] == ALL:
                    budget = row["budget"].replace("/", "_")
                    layer = f"/layer_{row['layer']:02d}" if by else ""
                    found[f"recall/{budget}{layer}"] = row["recall"]
                    found[f"of_oracle/{budget}{layer}"] = row["of_oracle"]
        return found

    def _kept_of_prompts(self) -> dict[str, float]:
        densities = self.config.evaluation.densities
        if not densities:
            return {}
        gates = [gate if isinstance(gate, PrefillGate) else None for gate in self.gates]
        with torch.autocast(self.training.device.type, enabled=False):
            figures = measure_prompts(
                self.loaded.model, self.held_out, densities, {SEER: gates}, block=self.shape.block_size
            )
        found: dict[str, float] = {}
        for by in ((), ("layer",)):
            for row in figures.layer_table(*by):
                if row["selector"] == SEER:
                    layer = f"/layer_{row['layer']:02d}" if by else ""
                    found[f"mass/{row['budget']}{layer}"] = row["mass"]
                    found[f"of_oracle/{row['budget']}{layer}"] = row["of_oracle"]
        return found

    def save(self, folder: Path, report: dict[str, Any]) -> None:
        """A gate folder in our format, with its card."""
        dtype = DTYPES[self.config.gates.save_dtype]
        gates = [None if gate is None else copy.deepcopy(gate).to(dtype) for gate in self.gates]
        about = self.loaded.hf_config, self.loaded.name
        if self.training.prompts:
            save_prefill_gates(folder, [g if isinstance(g, PrefillGate) else None for g in gates], *about)
        else:
            save_gates(folder, [g if isinstance(g, AttnGate) else None for g in gates], *about)
            self._allocate(folder)
        write_card(folder, self.config, report, self.corpora, gates)

    def _allocate(self, folder: Path) -> None:
        """How heads share a budget, beside the gates, as far as there are documents long enough to see it."""
        count, block = self.config.evaluation.allocation, self.shape.block_size
        long = [[d for d in c.train if len(d.tokens) >= SHORTEST * block] for c in self.corpora]
        documents = longest(long, count)
        if not documents:
            return
        gates = [gate if isinstance(gate, AttnGate) else None for gate in self.gates]
        whole = max(len(document.tokens) for document in documents)
        with torch.autocast(self.training.device.type, enabled=False), self._out_of_memory_explained():
            found = share(
                self.loaded.model,
                documents,
                {SEER: selectors_of(SEER, attention_shape(self.loaded.model), gates)},
                [Budget.parse(text).blocks(whole, block) for text in MEANS],
                price_length=min(whole, PRICE_LENGTH),
                block=block,
                sink=True,
                rows=Rows(first=self.config.objective.skip, stride=self.config.evaluation.stride),
            )
        sources = sorted({document.source for document in documents})
        about = {"model": self.loaded.name, "block_size": block, "documents": sources}
        (folder / ALLOCATION).write_text(allocation_text(found.allocations, about), encoding="utf-8")

    def plan(self, length: int | None = None) -> MemoryPlan:
        """See ``plan_of``; with the weights that are there."""
        weights = sum(p.numel() * p.element_size() for p in self.loaded.model.parameters())
        return plan_of(self.config, self.loaded.hf_config, self.shape, self.loaded.dtype, length, weights)

    @contextlib.contextmanager
    def _out_of_memory_explained(self) -> Iterator[None]:
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            device = self.training.device
            length = self.config.train.length
            raise out_of_memory(length, self.plan, self.shape.block_size, device) from error


def plan_of(
    config: DistillConfig,
    hf_config: PreTrainedConfig,
    shape: Shape,
    dtype: torch.dtype,
    length: int | None = None,
    weights: int | None = None,
) -> MemoryPlan:
    """The computed peak of a worker with rows of ``length`` tokens; None: of ``train.length``.

    Args:
        shape: of the gates.
        dtype: of the model.
        weights: bytes of the model; None: from its config.
    """
    length = length or config.train.length
    return plan_memory(
        hf_config,
        length,
        shape.block_size,
        shape.gate_dim,
        config.objective,
        dtype,
        len(gated_layers(config.gates.layers, hf_config)),
        weights,
        -(-rows_per_step(config, length) // (config.cluster.workers or 1)),
    )


def rows_per_step(config: DistillConfig, length: int) -> int:
    """Of ``length`` tokens each, of all workers together."""
    return max(1, config.train.batch_tokens // length)


def check_distill(config: DistillConfig) -> None:
    """What options demand of each other, before anything is loaded.

    Raises:
        ConfigError: names the option.
    """
    parse_sources(config.data)
    for text in config.evaluation.budgets:
        Setting.of(text, "evaluation.budgets")
    if not config.objective.distill and not config.objective.lm:
        raise ConfigError(
            "objective.distill=0, objective.lm=0: nothing to train for; set one of them above 0"
        )
    if config.gates.kind == "prefill" and config.objective.lm:
        raise ConfigError(
            f"objective.lm={config.objective.lm:g}: soft gates are those of decoding; with gates.kind=prefill"
            " leave it 0"
        )
    if config.objective.lm and config.objective.updates > 1:
        raise ConfigError(
            f"objective.updates={config.objective.updates}: objective.lm={config.objective.lm:g} needs a pass"
            " of the model for each update; set objective.updates=1, or objective.lm=0"
        )
    if config.objective.skip >= 1:
        raise ConfigError("objective.skip=1: leaves no row to train on; the published recipe leaves out 0.5")


def load_teacher(config: ModelConfig, device: str) -> LoadedModel:
    """The model without its gates, frozen, on the worker's device."""
    return load_model(ModelConfig(**{**vars(config), "gates": None, "prefill_gates": None, "device": device}))
