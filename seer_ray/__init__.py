"""seer-ray: batches of long chains of thought, decoded with learned block-sparse attention.

The engine alone, without Ray or MLflow::

    from seer_ray import Engine, ModelConfig, Request, SamplingParams, load_model
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seer_ray.config.errors import ConfigError
    from seer_ray.config.options import EngineConfig, ModelConfig, PlanConfig, SelectorConfig
    from seer_ray.engine import (
        Completion,
        Counters,
        Delta,
        Engine,
        Progress,
        Request,
        SamplingParams,
        Structure,
        TokenLogprobs,
    )
    from seer_ray.models.load import load_model

# OpenMP reads this when torch is loaded. By default its threads spin for long at every barrier: with
# another process on their cores (Ray's own, say) a decode step then takes ten times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Imported when asked for: the command line must answer before torch is loaded.
_HOMES = {
    "ConfigError": "seer_ray.config.errors",
    **dict.fromkeys(
        ("EngineConfig", "ModelConfig", "PlanConfig", "SelectorConfig"), "seer_ray.config.options"
    ),
    **dict.fromkeys(
        (
            "Completion",
            "Counters",
            "Delta",
            "Engine",
            "Progress",
            "Request",
            "SamplingParams",
            "Structure",
            "TokenLogprobs",
        ),
        "seer_ray.engine",
    ),
    "load_model": "seer_ray.models.load",
}

__all__ = [
    "Completion",
    "ConfigError",
    "Counters",
    "Delta",
    "Engine",
    "EngineConfig",
    "ModelConfig",
    "PlanConfig",
    "Progress",
    "Request",
    "SamplingParams",
    "SelectorConfig",
    "Structure",
    "TokenLogprobs",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seer_ray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
