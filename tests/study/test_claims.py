"""What papers say, asked of grids of known values."""

from __future__ import annotations

from typing import Any

import pytest

from seer_ray.study.claims import claims
from seer_ray.study.grid import Model, Trained
from seer_ray.study.outcomes import model_table, pareto_table

PPL, SKIP, SHORT = "text/perplexity", "text_skip/perplexity", "text_context_16/perplexity"
PAIRS = "16_pairs/token_accuracy"


def grid(values: dict[tuple[str, str], list[dict[str, float]]]) -> Trained:
    """By mixer and layout, for each seed."""
    found = Trained([0, 1])
    for (mixer, layout), cells in values.items():
        model = Model("", mixer, layout, (mixer, layout))
        found.cells[model], found.ids[model] = cells, ["a", "b"]
    return found


def told(values: dict[tuple[str, str], list[dict[str, float]]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in claims(grid(values)):
        found.setdefault(row["name"], []).append(row["holds"])
    return found


def test_relaxations() -> None:
    """Of every seed: one that is off is enough."""
    values = {
        ("attention", "all"): [{PPL: 10.0}, {PPL: 12.0}],
        ("mlp", "uniform"): [{PPL: 20.0, SHORT: 20.0}, {PPL: 20.0, SHORT: 20.0 * (1 + 5e-7)}],
        ("mlp", "even"): [{PPL: 10.0, SKIP: 99.0}, {PPL: 13.0, SKIP: 99.0}],
        ("nonapproximate", "uniform"): [{PPL: 12.0}, {PPL: 14.0}],
        ("nonapproximate", "even"): [{PPL: 11.0, SKIP: 90.0}, {PPL: 14.0, SKIP: 30.0}],
    }
    assert told(values) == {
        "G1": [None, None],
        "G2": [True, False],
        "G3": [True, False],
        "G4": [True, False],
        "G5": [True],
    }
    values["mlp", "uniform"][0][SHORT] = 20.0 * (1 + 2e-6)
    assert told(values)["G5"] == [False]


@pytest.mark.parametrize(
    ("mixed", "pure", "holds"),
    [((1.0, 0.96), (0.4, 0.1), True), ((1.0, 0.94), (0.4, 0.1), False), ((1.0, 1.0), (0.4, 0.75), False)],
)
def test_recall(mixed: tuple[float, float], pure: tuple[float, float], holds: bool) -> None:
    values = {
        ("attention", "all"): [{PAIRS: 1.0}, {PAIRS: 1.0}],
        ("retnet", "uniform"): [{PAIRS: value, "4_pairs/token_accuracy": 1.0} for value in pure],
        ("retnet", "3:1 first"): [{PAIRS: value, "4_pairs/token_accuracy": 0.0} for value in mixed],
    }
    assert told(values)["G1"] == [None, holds]


def test_most_recall_for_the_bytes() -> None:
    """Half as good for a tenth of the bytes is on the front; no better and larger is not."""
    size = "memory/at_64"
    values = {
        ("attention", "all"): [{PAIRS: 1.0, size: 100.0}, {PAIRS: 0.98, size: 100.0}],
        ("gla", "uniform"): [{PAIRS: 0.5, size: 10.0}, {PAIRS: 0.5, size: 10.0}],
        ("gla", "3:1 first"): [{PAIRS: 0.4, size: 30.0}, {PAIRS: 0.4, size: 30.0}],
    }
    found = grid(values)
    best = {(row["mixer"], row["layout"]): row["best"] for row in pareto_table(found, [8, 64])}
    assert best == {("attention", "all"): True, ("gla", "uniform"): True, ("gla", "3:1 first"): False}
    rows = {(row["mixer"], row["layout"]): row for row in model_table(found) if row["name"] == PAIRS}
    assert rows["gla", "uniform"]["than"] == pytest.approx(-0.49)
    assert rows["attention", "all"]["mean_high"] == 1.0  # a share is no more than all
