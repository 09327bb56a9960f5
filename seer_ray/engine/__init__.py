"""The engine: requests to completions on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seer_ray.engine.request import (
    Completion,
    Counters,
    Delta,
    Progress,
    Request,
    SamplingParams,
    Structure,
    TokenLogprobs,
)

if TYPE_CHECKING:
    from seer_ray.engine.engine import Engine

__all__ = [
    "Completion",
    "Counters",
    "Delta",
    "Engine",
    "Progress",
    "Request",
    "SamplingParams",
    "Structure",
    "TokenLogprobs",
]


def __getattr__(name: str) -> Any:
    # Requests are spoken of in processes that have no engine, and should not load torch for it.
    if name == "Engine":
        from seer_ray.engine.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
