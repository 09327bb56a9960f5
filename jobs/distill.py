"""Gates for a frozen model, from its own runs or any text.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from seer_ray.config.training import DistillConfig
from seer_ray.corpora.documents import parse_sources
from seer_ray.driver.train import Report, train
from seer_ray.models.identity import Contents
from seer_ray.status.live import Reporter, TrainLive, TrainSummary
from seer_ray.tracking.tracker import Dataset

if TYPE_CHECKING:
    from seer_ray.training.gates.memory import MemoryPlan
    from seer_ray.training.loop import TrainResult


def main(config: DistillConfig, reporter: Reporter[TrainLive, TrainSummary] | None = None) -> TrainSummary:
    """Runs the job to its end; see ``seer_ray.driver.train.train``."""
    # Brings torch along, which only what is not done needs.
    from seer_ray.training.gates.distillation import check_distill

    check_distill(config)
    if reporter is not None:
        reporter.note(f"computed peak memory of a worker: {plan(config).total / 2**30:.1f} GiB")
    sources = ", ".join(source.path for source in parse_sources(config.data))
    then = f"seer-ray run model.name={config.model.name} model.gates={{product}} selector=seer"
    if config.gates.kind == "prefill":
        then = f"seer-ray run model.name={config.model.name} model.prefill_gates={{product}} selector=dense"
        then += " selector.prefill.density=0.3"
    return train(config, _launch, "gates", reporter, Dataset("documents", sources, sources, 0), (then,))


def plan(config: DistillConfig) -> MemoryPlan:
    """The computed peak of a worker. Reads configs, no weights."""
    from seer_ray.models.load import DTYPES, load_config
    from seer_ray.training.gates.distillation import plan_of
    from seer_ray.training.gates.shapes import gate_shape

    hf_config = load_config(config.model)
    dtype = DTYPES.get(config.model.dtype) or getattr(hf_config, "dtype", None) or DTYPES["float32"]
    return plan_of(config, hf_config, gate_shape(config, hf_config), dtype)


def _launch(config: DistillConfig, contents: Contents, place: str, report: Report) -> TrainResult:
    from seer_ray.training.launch import Training, launch

    return launch(Training(_build, config, place, "gates", os.getcwd(), contents), report)


def _build(config: DistillConfig, device: str) -> Any:
    """In a worker."""
    from seer_ray.training.gates.distillation import Distillation

    return Distillation(config, device)
