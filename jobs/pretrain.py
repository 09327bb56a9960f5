"""A small model from scratch, on problems that are made as they are needed, or on text.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seer_ray.config.checks import check
from seer_ray.config.compose import run_name
from seer_ray.config.training import PretrainConfig
from seer_ray.corpora.documents import parse_sources
from seer_ray.driver.train import Report, train
from seer_ray.models.identity import Contents
from seer_ray.status.live import Reporter, TrainLive, TrainSummary
from seer_ray.tracking.tracker import Dataset

if TYPE_CHECKING:
    from seer_ray.training.loop import TrainResult


def main(config: PretrainConfig, reporter: Reporter[TrainLive, TrainSummary] | None = None) -> TrainSummary:
    """Runs the job to its end; see ``seer_ray.driver.train.train``."""
    # Brings torch along. Told here, before anything is started.
    from seer_ray.training.pretrain.objective import check_pretraining

    check(config)
    check_pretraining(config)
    data = config.data
    content = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    commands: tuple[str, ...] = ("seer-ray run model.name={product} selector=dense",)
    if data.text is None and data.generator == "mqar":
        source, commands = f"associative recall: {data.start} to {data.end} pairs", ()
        dataset = Dataset(data.generator, content, source, 0)
    elif data.text is None:
        source = f"built-in problems: {data.generator}, {data.start} to {data.end} steps"
        dataset = Dataset(data.generator, content, source, 0)
        commands = (f"seer-ray run model.name={{product}} task={data.generator} selector=dense",)
    else:
        paths = [source.path for source in parse_sources(data.text, "data.text")]
        dataset = Dataset("text", content, ", ".join(paths), 0)
    return train(config, _launch, "model", reporter, dataset, commands)


@dataclass(frozen=True)
class PretrainPlan:
    """What a training from scratch would be."""

    name: str
    weights: int
    steps: int
    tokens: int
    """Of all steps together."""

    def lines(self) -> list[str]:
        """For a person."""
        return [
            f"{self.name}: a model of {self.weights:,} weights",
            f"{self.steps:,} steps, {self.tokens:,} tokens",
        ]


def plan(config: PretrainConfig) -> PretrainPlan:
    """What the job would do; makes no weights and reads no data."""
    from seer_ray.training.pretrain.model import weights_of
    from seer_ray.training.pretrain.objective import check_pretraining, tokenizer_of

    check(config)
    check_pretraining(config)
    weights, steps = weights_of(config.architecture, config.plan, tokenizer_of(config)), config.train.steps
    return PretrainPlan(run_name(config), weights, steps, steps * config.train.batch_tokens)


def _launch(config: PretrainConfig, contents: Contents, place: str, report: Report) -> TrainResult:
    from seer_ray.training.launch import Training, launch

    return launch(Training(_build, config, place, "model", os.getcwd(), contents), report)


def _build(config: PretrainConfig, device: str) -> Any:
    """In a worker."""
    from seer_ray.training.pretrain.objective import Pretraining

    return Pretraining(config, device)
