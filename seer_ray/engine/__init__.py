"""The engine: requests to completions on one device."""

from seer_ray.engine.engine import Engine
from seer_ray.engine.request import Completion, Delta, Progress, Request, SamplingParams

__all__ = ["Completion", "Delta", "Engine", "Progress", "Request", "SamplingParams"]
