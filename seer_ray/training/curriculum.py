"""How long the problems are that a training step learns: a function of the step alone."""

from __future__ import annotations

import random

from seer_ray.config import ConfigError
from seer_ray.training.options import ProblemsConfig


def longest(step: int, steps: int, config: ProblemsConfig) -> float:
    """The current maximum in generator steps: ``start`` at rest, then to ``end`` by a constant factor.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    since, growing = step - config.rest * steps, config.growth * steps
    progress = min(1.0, max(0.0, since / growing)) if growing else float(since >= 0)
    return config.start * (config.end / config.start) ** progress


def length(step: int, steps: int, seed: int, config: ProblemsConfig, index: int = 0) -> int:
    """Generator steps of a training step's problems, drawn evenly from ``shortest`` to 1 times the current
    maximum.

    Args:
        index: of the problem, where each has a length of its own.
    """
    name = f"length-{seed}-{step}" + (f"-{index}" if index else "")
    share = random.Random(name).uniform(config.shortest, 1.0)
    return max(2, round(share * longest(step, steps, config)))


def check_curriculum(config: ProblemsConfig) -> None:
    """Raises ConfigError if problems would shrink, or not be done growing."""
    if config.end < config.start:
        raise ConfigError(f"data.end={config.end}: must be at least data.start={config.start}")
    if config.rest + config.growth > 1:
        raise ConfigError(
            f"data.rest={config.rest:g}: must be at most {1 - config.growth:g}, what data.growth leaves"
        )
