"""A model trained in this process, without a job around it: for studies of many small models."""

from __future__ import annotations

from pathlib import Path

from seer_ray.config.checks import check
from seer_ray.config.training import PretrainConfig
from seer_ray.training.loop import Report, TrainResult, fit
from seer_ray.training.pretrain.objective import Pretraining


def pretrain_alone(
    config: PretrainConfig, folder: Path | str, device: str = "cpu", report: Report | None = None
) -> TrainResult:
    """``seer-ray pretrain`` without Ray, tracking and report; the same weights and figures.

    Called in a process of its own, or in a Ray task::

        @ray.remote(num_cpus=1, max_calls=1)
        def cell(config, folder):
            torch.set_num_threads(1)
            return pretrain_alone(config, folder).metrics

    Args:
        config: all options of the job; those of ``cluster``, ``results`` and ``tracking`` are not read.
        folder: gets ``checkpoints/``, ``metrics.jsonl`` and ``model/``; called again with it, training goes
            on from its newest checkpoint, or is done.
        device: see ``model.device``.
        report: told of each step; what it returns that is true stops the training.

    Returns:
        ``metrics``: the last of each, among them ``eval/text/loss``, ``eval/text/perplexity``,
        ``eval/text_context_32/...``, ``eval/16_pairs/token_accuracy`` and ``eval/text_skip/...``: see
        ``Pretraining.evaluate`` and ``finish``.

    Raises:
        ConfigError: options that do not go together.
        TrainingError: the loss is not a number.
    """
    check(config)
    return fit(Pretraining(config, device), config.train, folder, report)
