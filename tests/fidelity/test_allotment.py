"""The division of a budget over layers, as numbers."""

from __future__ import annotations

import itertools
import random

import pytest

from seer_ray.fidelity.allotment import Cost, allot, total


def curve(*points: tuple[float, float]) -> dict[str, Cost]:
    return {f"{read:g}": Cost(read, loss) for read, loss in points}


def test_by_hand() -> None:
    """A token of the first layer is worth 1 up to 3, of the second 2 up to 2, of the third nothing."""
    layers = [
        curve((1, 9), (2, 8), (3, 7), (4, 6.9)),
        curve((1, 5), (2, 3), (3, 2.9)),
        curve((1, 0), (2, 0), (3, 0)),
    ]
    assert allot(layers, 2) == ["3", "2", "1"]
    assert allot(layers, 5 / 3) == ["2", "2", "1"]
    assert allot(layers, 4 / 3) == ["1", "2", "1"]
    assert allot(layers, 100) == ["4", "3", "1"]  # what gains nothing is not read
    assert allot(layers, 0.5) == ["1", "1", "1"]  # nothing reads less
    assert total(layers, ["3", "2", "1"]) == Cost(6, 10)


def test_what_a_price_leaves_over_is_spent() -> None:
    """No price takes the middle choice, which is above the line from the first to the last."""
    layers = [curve((1, 10), (5, 9), (10, 0))]
    assert allot(layers, 4) == ["1"]
    assert allot(layers, 6) == ["5"]
    assert allot(layers, 10) == ["10"]


@pytest.mark.parametrize("seed", range(5))
def test_no_division_that_reads_as_little_loses_less(seed: int) -> None:
    """Against all divisions, at those budgets that a price meets exactly."""
    draw = random.Random(seed)
    layers = []
    for _ in range(4):
        slopes = sorted((draw.random() for _ in range(4)), reverse=True)
        losses = [10 - part for part in itertools.accumulate(slopes, initial=0.0)]
        layers.append(curve(*((1 + step, loss) for step, loss in enumerate(losses))))
    for read in range(4, 21):
        chosen = total(layers, allot(layers, read / 4))
        best = min(
            cost.loss for one in itertools.product(*layers) if (cost := total(layers, one)).read <= read
        )
        assert chosen.read <= read
        assert chosen.loss == pytest.approx(best)
