"""Options of studies: what layers of other kinds cost and bring (see ``seer_ray.config.options``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seer_ray.config.fields import option, section
from seer_ray.config.measuring import HeldOutConfig
from seer_ray.config.options import ClusterConfig, JobConfig, SweepConfig
from seer_ray.config.training import (
    ArchitectureConfig,
    PretrainConfig,
    PretrainEvalConfig,
    ProblemsConfig,
    TrainConfig,
)

RELAXATIONS = {
    "self": "each token sees itself alone; its value and output projections stay",
    "uniform": "the mean over all tokens so far",
    "window": "softmax over the last tokens and the first ones (probe.window, probe.sinks)",
    "taylor": "1 + x + x²/2 in place of the exponential, normalised jointly",
    "static": "queries and keys from the embedding of the tokens, not from the layer's input",
    "fixed": "queries and keys of a fixed text: one map for all inputs",
    "random": "queries and keys of noise that passes through the model: one map for all inputs",
    "gated": "the blocks that the layer's trained gate selects (model.gates, probe.budget)",
    "silent": "the layer mixes nothing: its attention is 0, its MLP stays",
    "skip": "the whole layer is left out",
}
"""What a layer of a pretrained model can be made to do after the fact."""
PLANNED = ("window", "gated")
"""Those that a layer plan of a run knows too, by the same name."""


@dataclass
class StudyConfig(JobConfig):
    """What every study in cells has."""

    cluster: ClusterConfig = section(ClusterConfig, operational=True)


@dataclass
class RelaxConfig:
    """What is relaxed, where, and how."""

    relaxations: list[str] | None = option(
        None, f"of {', '.join(RELAXATIONS)}; None: all that the model can have"
    )
    layers: str | None = option(
        None, "layers that may be relaxed, such as '0-3,7'; None: all with full attention"
    )
    sets: Any = option(
        ["even", "odd", "top", "middle", "bottom", "quarter"],
        "sets of layers relaxed together: names of plan.named, of which all but the anchors are relaxed, or "
        "{name: '0-3,7'}",
    )
    draws: int = option(5, "random sets beside those of a size, for comparison", minimum=0)
    window: int = option(64, "tokens that window looks back, its own included", unit="tokens", minimum=1)
    sinks: int = option(4, "first tokens that window sees too", unit="tokens", minimum=0)
    budget: int = option(128, "of gated, as selector.budget", unit="tokens", minimum=1)
    fixed: str | None = option(
        None,
        "text file of fixed; None: documents of the first source that are not measured",
        path=True,
    )
    recall: list[str] = option(
        ["needle"],
        "retrieval tasks (task.generator.name) beside the text, of its length: is the answer still read? "
        "needle, needle_keys, needle_values, needle_queries; []: none",
    )
    prompts: int = option(4, "of each of these tasks", minimum=1)


@dataclass
class ChoiceConfig:
    """Which layers stay dense where all others are relaxed: chosen on some documents, compared on others."""

    dense: int | None = option(
        None, "layers that stay dense; None: one of five; 0: none are chosen", minimum=0
    )
    cheap: str = option("window", "what all others do", choices=tuple(RELAXATIONS))
    candidates: int = option(
        8, "of the layers that cost most alone, those that greedy tries for each place", minimum=1
    )
    rankings: dict[str, str] = option(
        {},
        "others' choices beside ours, by name: files with plan.ranking, as seer-ray gates shares writes them",
        path=True,
    )


@dataclass
class StudyProbeConfig(HeldOutConfig, StudyConfig):
    """What a pretrained model relies on: layers relaxed after the fact, alone and in company."""

    command = "study probe"

    seed: int = option(0, "of all that is drawn", minimum=0, maximum=2**63 - 1)
    held_out: float = option(
        0.5, "share of the documents that choices are compared on, and not made on", minimum=0.0, maximum=0.9
    )
    length: int = option(512, "longer documents are cut here", unit="tokens", minimum=8)
    skip: float = option(
        0.25, "share of a document's rows, from its first, that do not count", minimum=0.0, maximum=0.99
    )
    stride: int = option(2, "every so many rows count", unit="tokens", minimum=1)
    probe: RelaxConfig = section(RelaxConfig)
    choice: ChoiceConfig = section(ChoiceConfig)

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        return ["probe", self.model.short]


@dataclass
class StudyPlanConfig(SweepConfig):
    """Dense, gated and window layers of a pretrained model at equal reads: a sweep."""

    command = "study plan"
    usual = "layers"

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        return [self.task.name, self.model.short, "layers"]


@dataclass
class GridConfig:
    """Which small models are trained: mixers, where they stand, seeds, and what each learns."""

    mixers: list[str] = option(
        ["mlp", "gated_deltanet"], "that take the place of attention in some layers, see plan.cheap"
    )
    layouts: list[str] = option(
        ["uniform", "even"],
        "which layers: uniform, all of them; the name of a set of plan.named, of which all but the anchors; "
        "or so many for each anchor and where that stands: '3:1 first', '3:1 last', as plan.phase",
    )
    anchor: str = option("attention", "what the other layers do, and all of the model they are compared with")
    seeds: int = option(2, "of each model: train.seed and the numbers after it", minimum=1)
    learn: dict[str, Any] = option(
        {},
        "what is learned, by name, each by a model of its own, and the options of pretrain that differ for "
        "it: {text: {}, recall: {data.text: null, data.generator: mqar}}; {}: one thing, as the options say",
        path=True,
    )
    lengths: list[int] = option(
        [1024, 8192, 65536],
        "at which the memory of a sequence and the reads of a token are told",
        unit="tokens",
    )
    decode: int = option(
        32, "tokens that the engine decodes to time a step, one sequence alone; 0: none", minimum=0
    )
    keep_models: bool = option(
        False, "keep the trained models, each a folder models/CELL/model that seer-ray run takes"
    )


@dataclass
class StudyTrainConfig(StudyConfig):
    """Small models trained from scratch, alike in all but how their layers mix tokens."""

    command = "study train"

    study: GridConfig = section(GridConfig)
    architecture: ArchitectureConfig = section(ArchitectureConfig)
    data: ProblemsConfig = section(ProblemsConfig)
    train: TrainConfig = section(TrainConfig)
    evaluation: PretrainEvalConfig = section(PretrainEvalConfig)

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        size = self.architecture
        return ["train", *self.study.mixers[:3], f"{size.layers}x{size.hidden_size}"]

    @property
    def pretrain(self) -> PretrainConfig:
        """What every model has in common."""
        return PretrainConfig(
            architecture=self.architecture, data=self.data, train=self.train, evaluation=self.evaluation
        )
