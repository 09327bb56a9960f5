"""The optimizer and its learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import TrainConfig


class Optimizer:
    """AdamW, and Muon (``torch.optim.Muon``) for the matrices between embedding and head if so configured.

    Muon's updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982): one learning rate
    and one weight decay serve both. Vectors (norms, biases) have no decay.

    Args:
        module: has the parameters, those with ``requires_grad`` are trained.

    Raises:
        ConfigError: nothing is trained, or the betas are no two numbers in [0, 1).
    """

    def __init__(self, module: nn.Module, config: TrainConfig) -> None:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not trained:
            raise ConfigError("train: no parameter of the model is trained")
        if len(config.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in config.betas):
            raise ConfigError(f"train.betas={config.betas}: must be two numbers from 0 to below 1")
        between = set() if config.optimizer == "adamw" else _between(module)
        matrices = [p for p in trained if p in between]
        groups = [
            {
                "params": [p for p in trained if p.dim() >= 2 and p not in between],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.parts: list[torch.optim.Optimizer] = []
        if groups := [group for group in groups if group["params"]]:
            first, second = config.betas
            self.parts.append(torch.optim.AdamW(groups, lr=config.lr, betas=(first, second), fused=True))
        if matrices:
            self.parts.append(
                torch.optim.Muon(
                    matrices,
                    lr=config.lr,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """One update at the learning rate ``rate``."""
        for group in self.param_groups:
            group["lr"] = rate
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def _between(module: nn.Module) -> set[nn.Parameter]:
    """Matrices of the layers: all but those of embeddings, which a head may share."""
    names = {
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) or name.endswith("lm_head")
    }
    outside = {p for name in names for p in module.get_submodule(name).parameters()}
    return {p for p in module.parameters() if p.dim() == 2 and p not in outside}


def lr_at(step: int, config: TrainConfig) -> float:
    """Learning rate of a step, from 0: linear warm-up, ``hold``, then a cosine from ``lr`` to ``min_lr``."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    begin = max(config.warmup, round(config.hold * config.steps))
    if step < begin:
        return config.lr
    progress = (step - begin) / max(1, config.steps - 1 - begin)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
