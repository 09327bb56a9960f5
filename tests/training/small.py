"""Options of a model and problems that train in seconds."""

from __future__ import annotations

from typing import Any

from seer_ray.config.compose import compose
from seer_ray.config.training import PretrainConfig

SMALL = (
    "architecture={hidden_size: 32, layers: 2, heads: 4, kv_heads: 2, head_dim: 8, intermediate_size: 64}",
    "architecture.max_positions=512",
    "data={start: 3, end: 6}",
    "train={steps: 6, batch_tokens: 600, length: 512, warmup: 2, log_every: 2, eval_every: 3}",
    "train={checkpoint_every: 2, dtype: float32, lr: 0.01}",
    "evaluation={lengths: [3, 7], problems: 3, answers: 2}",
    "cluster={workers: 1, num_cpus: 1}",
    "tracking.enabled=false",
)


def small(*overrides: str, **fields: Any) -> PretrainConfig:
    """``overrides`` win; ``fields`` are those of the top, such as ``name``."""
    config = compose([*SMALL, *overrides], PretrainConfig)
    for name, value in fields.items():
        setattr(config, name, value)
    return config
