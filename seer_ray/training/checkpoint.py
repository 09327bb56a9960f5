"""Where a training job stands, whole or not at all: weights, optimizer, step and unfinished averages."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from seer_ray.config.errors import ConfigError
from seer_ray.results.job import CHECKPOINTS as FOLDER
from seer_ray.results.store import Store
from seer_ray.training.optim import Optimizer

KEEP = 2
"""The newest ones stay: should the last one be damaged, there is another."""


@dataclass
class State:
    """How far training is, weights and optimizer aside."""

    step: int = 0
    """Steps done."""
    tokens: float = 0.0
    seconds: float = 0.0
    """Spent in training, all sessions together."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of the metrics since they were last logged."""
    summed: int = 0
    """Steps in ``sums``."""


def save(store: Store, module: nn.Module, optimizer: Optimizer, state: State) -> None:
    """Write a checkpoint, then drop all but the newest ``KEEP``. Only what is trained is in it."""
    content = io.BytesIO()
    weights = {name: p.data for name, p in module.named_parameters() if p.requires_grad}
    torch.save({"weights": weights, "optimizer": optimizer.state_dict(), "state": asdict(state)}, content)
    store.make_folder(FOLDER)
    store.write(f"{FOLDER}/step-{state.step:08d}.pt", content.getvalue())
    store.delete(f"{FOLDER}/{name}" for name in names(store)[:-KEEP])


def names(store: Store) -> list[str]:
    """Files of checkpoints, oldest first."""
    return sorted(name for name in store.list(FOLDER) if re.fullmatch(r"step-\d+\.pt", name))


def read(store: Store) -> dict[str, Any] | None:
    """The newest checkpoint; None: there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    found = names(store)
    if not found:
        return None
    name = f"{FOLDER}/{found[-1]}"
    try:
        return torch.load(io.BytesIO(store.read(name)), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever zip and pickle raise
        raise ConfigError(
            f"{store.locate(name)}: cannot be read ({type(error).__name__}); delete it to go on from the one "
            "before"
        ) from error


def restore(content: dict[str, Any], module: nn.Module, optimizer: Optimizer, where: str) -> State:
    """Put a checkpoint's weights and optimizer in place.

    Raises:
        ConfigError: it is of other weights.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    weights = content["weights"]
    shapes = {name: tuple(p.shape) for name, p in trained.items()}
    if shapes != {name: tuple(weight.shape) for name, weight in weights.items()}:
        raise ConfigError(
            f"{where}: its checkpoint has other weights than this model; give the run another name"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    optimizer.load_state_dict(content["optimizer"])
    return State(**content["state"])
