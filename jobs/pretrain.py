"""A small model, trained from scratch on the built-in problems.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

from typing import Any

from seer_ray.config import check
from seer_ray.jobs.training import train
from seer_ray.tracking.tracker import Dataset
from seer_ray.training.display import TrainReporter, TrainSummary
from seer_ray.training.options import PretrainConfig


def main(config: PretrainConfig, reporter: TrainReporter | None = None) -> TrainSummary:
    """Runs the job to its end; see ``seer_ray.jobs.training.train``."""
    # Told here, before anything is started.
    from seer_ray.training.pretrain import check_pretraining

    check(config)
    check_pretraining(config)
    data = config.data
    source = f"built-in problems: {data.generator}, {data.start} to {data.end} steps"
    return train(
        config,
        "pretrain",
        build,
        "model",
        reporter,
        Dataset(data.generator, f"difficulty-{data.difficulty}", source, 0),
        (f"seer-ray run model.name={{product}} task={data.generator} selector=dense",),
    )


def build(config: PretrainConfig, device: str) -> Any:
    """In a worker."""
    from seer_ray.training.pretrain import Pretraining

    return Pretraining(config, device)
