"""Settings that no other setting beats at both cost and accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping


def front(costs: Mapping[str, float | None], accuracies: Mapping[str, float | None]) -> list[str]:
    """The Pareto front, cheapest first.

    Args:
        costs: by setting, less is better: attended tokens or measured seconds. None or NaN: not known
        accuracies: by setting, more is better

    Returns:
        Settings to which none is as good at both and better at one. Of settings that are equal at both, the
        first by name. Those of which one is not known are on no front.
    """
    known = []
    for name, cost in costs.items():
        accuracy = accuracies.get(name)
        if cost is not None and accuracy is not None and math.isfinite(cost) and math.isfinite(accuracy):
            known.append((cost, -accuracy, name))
    chosen: list[str] = []
    best = math.inf
    for _, loss, name in sorted(known):
        if loss < best:
            chosen.append(name)
            best = loss
    return chosen
