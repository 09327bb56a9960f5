"""What a layer plan allows to be read, from its code: the nominal side of ``attended_kv``."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]

_KIND = re.compile(
    r"(?P<count>\d+)?(?P<name>[a-z_]\w*?)"
    r"(?:(?P<budget>\d+)(?:b\d+(?:[tm][\d.]+(?:e-\d+)?)?(?:f(?P<fraction>[\d.]+(?:e-\d+)?))?(?:-heads|-allocated)?(?:-nosink)?(?:-prefill)?)?)?"
)
_STATELESS = ("linear", "none")
"""Layers of a plan's code that keep no KV, and so count neither as read nor as there to be read."""


class Reads(NamedTuple):
    """Layers that are alike."""

    layers: int
    budget: int | None
    """KV tokens per KV head and step at most, mean over heads; None: all there is."""
    fraction: float = 0.0
    """Or so large a share of what there is, where that is more."""


@cache
def reads(plan: str) -> tuple[Reads, ...] | None:
    """Of the layers that keep KV, by ``LayerPlan.id``; None: not known, as where drafts read beside them."""
    if ";" in plan:
        return None
    count, colon, kinds = plan.partition("@")[0].partition("~")[0].partition("L:")
    parts = kinds.split("+")
    matches = [_KIND.fullmatch(part) for part in parts]
    if not colon or not count.isdigit() or not all(matches):
        return None
    found = []
    for match in matches:
        assert match is not None
        name, budget = match["name"], match["budget"]
        if budget is None and name not in ("dense", *_STATELESS):
            return None
        if name not in _STATELESS:
            fraction = float(match["fraction"] or 0)
            found.append(Reads(int(match["count"] or count), int(budget) if budget else None, fraction))
    return tuple(found)


def tokens_read(budget: int | None, prompt: Array, completion: Array, fraction: float = 0.0) -> Array:
    """KV tokens that one KV head of a layer reads, over the decode steps of each chain: all there is in each
    step, up to ``budget``, or to ``fraction`` of it.

    Args:
        prompt: length of each chain's prompt, [chains]
        completion: of its completion, [chains]
    """
    if budget is None:
        short, rest = completion, np.zeros_like(completion)
    else:
        short = np.minimum(completion, np.maximum(0, budget - prompt))
        rest = (completion - short) * budget
    if budget is not None and fraction:
        first = np.maximum(prompt, math.ceil(budget / fraction))  # the step from which the fraction is more
        grown = np.maximum(0, prompt + completion - first)
        more = fraction * (grown * first + grown * (grown - 1) // 2) - budget * grown
        rest = rest + np.rint(more).astype(np.int64)
    return short * prompt + short * (short - 1) // 2 + rest
