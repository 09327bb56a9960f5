"""How much faster a setting is than another: only where that was measured, with its interval.

Settings that one job decodes have their turns on the same workers, one after the other, over the same
problems. What is compared is the speed of each turn with that of the same turn of the baseline, so that a
machine which slows down slows both. Speeds of different jobs are not compared: another load, another machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from seer_ray.analysis import clustered
from seer_ray.results.speed import ENOUGH, Speed

WIDEST = math.log(1.25)
"""Half the width of an interval, as a logarithm, beyond which the speed was not steady enough to be told."""


@dataclass(frozen=True)
class Speedup:
    """Tokens per second over the baseline's. None: not to be told, for the reason in ``lacks``."""

    value: float | None
    low: float | None = None
    high: float | None = None
    turns: int = 0
    lacks: str = ""


def speedup(
    setting: Speed | None, baseline: Speed | None, same_job: bool, confidence: float = 0.95
) -> Speedup:
    """Of the turns that both had: the geometric mean of their ratios, and Student's interval of it.

    Args:
        setting, baseline: None: not measured
        same_job: whether one job measured both
        confidence: of the interval
    """
    if setting is None or baseline is None:
        return Speedup(None, lacks="not measured")
    if not same_job:
        return Speedup(None, lacks="measured in different jobs, not in turns under one load")
    turns = len(setting.turns)
    if turns != len(baseline.turns):
        return Speedup(None, turns=min(turns, len(baseline.turns)), lacks="not measured in the same turns")
    if turns < ENOUGH:
        return Speedup(None, turns=turns, lacks=f"measured in too few turns ({turns}, of {ENOUGH} at least)")
    ratios = np.log(np.array(setting.turns) / np.array(baseline.turns))
    mean, error = float(ratios.mean()), float(ratios.std(ddof=1)) / math.sqrt(turns)
    half = float(clustered.quantile(0.5 + confidence / 2, np.ones(turns))) * error
    low, value, high = (math.exp(mean + end) for end in (-half, 0.0, half))
    if half > WIDEST:
        return Speedup(None, turns=turns, lacks=f"not steady, {low:.2g}x to {high:.2g}x in {turns} turns")
    return Speedup(value, low, high, turns)
