"""seer-ray: batches of long chains of thought, decoded with learned block-sparse attention.

A whole run, or a sweep, as the command line has them::

    import seer_ray

    summary = seer_ray.run("selector=quest", {"task.limit": 8})

The rows of a run, as an Arrow stream::

    table = seer_ray.read("runs/NAME", ["problem_id", "correct"]).read_all()

The engine alone, without Ray or MLflow::

    from seer_ray import Engine, ModelConfig, Request, SamplingParams, load_model
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seer_ray.config.errors import ConfigError, Interrupted, JobError
    from seer_ray.config.options import EngineConfig
    from seer_ray.config.selecting import ModelConfig, PlanConfig, SelectorConfig
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
    from seer_ray.jobs.call import run, sweep
    from seer_ray.models.load import load_model
    from seer_ray.results.read import read

    __version__: str

# OpenMP reads this when torch is loaded. By default its threads spin for long at every barrier: with
# another process on their cores (Ray's own, say) a decode step then takes ten times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Imported when asked for: the command line must answer before torch is loaded.
_HOMES = {
    **dict.fromkeys(("ConfigError", "Interrupted", "JobError"), "seer_ray.config.errors"),
    "EngineConfig": "seer_ray.config.options",
    **dict.fromkeys(("ModelConfig", "PlanConfig", "SelectorConfig"), "seer_ray.config.selecting"),
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
    "read": "seer_ray.results.read",
    **dict.fromkeys(("run", "sweep"), "seer_ray.jobs.call"),
}

__all__ = [
    "Completion",
    "ConfigError",
    "Counters",
    "Delta",
    "Engine",
    "EngineConfig",
    "Interrupted",
    "JobError",
    "ModelConfig",
    "PlanConfig",
    "Progress",
    "Request",
    "SamplingParams",
    "SelectorConfig",
    "Structure",
    "TokenLogprobs",
    "__version__",
    "load_model",
    "read",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("seer-ray")
    if name not in _HOMES:
        raise AttributeError(f"module 'seer_ray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
