"""How much each layer should read of what all of them may read."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Choice = TypeVar("Choice", bound=Hashable)


class Cost(NamedTuple):
    """Of one choice in one layer."""

    read: float
    """KV tokens per KV head and step."""
    loss: float
    """What all the layers together should have little of."""


def allot(layers: Sequence[Mapping[Choice, Cost]], read: float) -> list[Choice]:
    """A choice for each layer: the sum of losses is small, the mean read at most ``read``.

    Those choices are taken that are best at one price per token read (Everett, "Generalized Lagrange
    multiplier method", 1963): no other choices that read as little lose less. What the price leaves over goes
    to the choices that gain most per token.

    Args:
        layers: what may be chosen in each.
        read: mean over layers. If nothing reads so little, what reads least is taken.
    """

    def at(price: float) -> list[Choice]:
        return [
            min(
                costs,
                key=lambda choice: (costs[choice].loss + price * costs[choice].read, costs[choice].read),
            )
            for costs in layers
        ]

    allowed = read * len(layers) * (1 + 1e-9)
    low, high = 1e-18, 1e6
    for _ in range(100):
        price = math.sqrt(low * high)
        if total(layers, at(price)).read > allowed:
            low = price
        else:
            high = price
    chosen = at(high)
    while True:
        left = allowed - total(layers, chosen).read
        gains = [
            ((costs[now].loss - cost.loss) / (cost.read - costs[now].read), -layer, choice)
            for layer, (costs, now) in enumerate(zip(layers, chosen, strict=True))
            for choice, cost in costs.items()
            if cost.loss < costs[now].loss and 0 < cost.read - costs[now].read <= left
        ]
        if not gains:
            return chosen
        _, layer, choice = max(gains, key=lambda gain: gain[:2])
        chosen[-layer] = choice


def total(layers: Sequence[Mapping[Choice, Cost]], chosen: Sequence[Choice]) -> Cost:
    """Sums over layers."""
    costs = [costs[choice] for costs, choice in zip(layers, chosen, strict=True)]
    return Cost(sum(cost.read for cost in costs), sum(cost.loss for cost in costs))
