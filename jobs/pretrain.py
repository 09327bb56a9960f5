"""A small model, trained from scratch on the built-in problems or on text.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

import hashlib
from typing import Any

from seer_ray.config.checks import check
from seer_ray.config.training import PretrainConfig
from seer_ray.driver.train import train
from seer_ray.status.live import TrainReporter, TrainSummary
from seer_ray.tracking.tracker import Dataset


def main(config: PretrainConfig, reporter: TrainReporter | None = None) -> TrainSummary:
    """Runs the job to its end; see ``seer_ray.driver.train.train``."""
    # Told here, before anything is started.
    from seer_ray.corpora.documents import parse_sources
    from seer_ray.training.pretrain.objective import check_pretraining

    check(config)
    check_pretraining(config)
    data = config.data
    content = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    if data.text is None:
        source = f"built-in problems: {data.generator}, {data.start} to {data.end} steps"
        dataset = Dataset(data.generator, content, source, 0)
        then = f"seer-ray run model.name={{product}} task={data.generator} selector=dense"
    else:
        paths = [source.path for source in parse_sources(data.text, "data.text")]
        dataset = Dataset("text", content, ", ".join(paths), 0)
        then = "seer-ray run model.name={product} selector=dense"
    return train(config, "pretrain", build, "model", reporter, dataset, (then,))


def build(config: PretrainConfig, device: str) -> Any:
    """In a worker."""
    from seer_ray.training.pretrain.objective import Pretraining

    return Pretraining(config, device)
