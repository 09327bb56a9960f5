"""AdamW and its learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from seer_ray.config import ConfigError, TrainConfig


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that are trained, without decay on vectors (norms, biases).

    Raises:
        ConfigError: nothing is trained, or the betas are no two numbers in [0, 1).
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise ConfigError("train: no parameter of the model is trained")
    if len(config.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in config.betas):
        raise ConfigError(f"train.betas={config.betas}: must be two numbers from 0 to below 1")
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    first, second = config.betas
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=(first, second), fused=True
    )


def lr_at(step: int, config: TrainConfig) -> float:
    """Learning rate of a step, from 0: linear warm-up, ``hold``, then a cosine from ``lr`` to ``min_lr``."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    begin = max(config.warmup, round(config.hold * config.steps))
    if step < begin:
        return config.lr
    progress = (step - begin) / max(1, config.steps - 1 - begin)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
