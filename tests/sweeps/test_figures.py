"""What MLflow is told of a sweep as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from analysis.made_runs import make_sweep

from seer_ray.analysis.comparison import Comparison, compare
from seer_ray.sweeps.figures import curves, figures, lines, recommended


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder: Path = tmp_path_factory.mktemp("sweep")
    return compare([str(run) for run in make_sweep(folder, record=0)])


def test_accuracy_is_a_curve_over_the_budget(comparison: Comparison) -> None:
    found = {one.name: one.accuracy.value for one in comparison.runs if one.accuracy}
    assert curves(comparison) == {
        budget: {f"accuracy/by_budget/{name}": found[f"{name} {budget}"] for name in ("quest", "seer")}
        for budget in (48, 96)
    }
    assert list(curves(comparison)) == [48, 96]


def test_dense_best_and_recommended(comparison: Comparison) -> None:
    found = {one.name: one.accuracy.value for one in comparison.runs if one.accuracy}
    told = figures(comparison)
    assert told["accuracy/dense"] == found["dense"]
    assert told["accuracy/best"] == max(value for name, value in found.items() if name != "dense")
    assert recommended(comparison) is None and "accuracy/recommended" not in told, (
        "twelve problems say little"
    )
    assert set(lines(comparison)) == {*found, "recommendation"}
