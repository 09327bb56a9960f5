"""Averages of figures, and budgets as they are written."""

from __future__ import annotations

import math

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.fidelity.budget import Budget
from seer_ray.fidelity.figures import Figures, LayerFigure, OutputFigure


def layer(document: str, selector: str, rows: int, mass: float, index: int = 0) -> LayerFigure:
    return LayerFigure(document, "text", index, selector, "1/8", "all", rows, 1.0, mass, 64.0)


def test_means_are_weighted_by_rows() -> None:
    figures = Figures(
        [
            layer("a", "oracle", 30, 0.8),
            layer("b", "oracle", 10, 0.4),
            layer("a", "seer", 30, 0.6),
            layer("b", "seer", 10, 0.3),
        ]
    )
    oracle, seer = figures.layer_table()
    assert (oracle["documents"], oracle["rows"]) == (2, 40)
    assert oracle["mass"] == pytest.approx(0.7)
    assert seer["mass"] == pytest.approx(0.525)
    assert seer["of_oracle"] == pytest.approx(0.75)
    # Deviations 30 · 0.075 and 10 · -0.225; n / (n - 1) = 2
    assert seer["mass_se"] == pytest.approx(math.sqrt(2 * (2.25**2 + 2.25**2)) / 40)


def test_averages_are_over_layers_that_all_selectors_have() -> None:
    oracle = [layer("a", "oracle", 10, mass, index) for index, mass in enumerate((0.8, 0.6, 1.0))]
    figures = Figures([*oracle, layer("a", "seer", 10, 0.6, 0), layer("a", "seer", 10, 0.3, 1)])
    found = {row["selector"]: row for row in figures.layer_table()}
    assert found["oracle"]["mass"] == pytest.approx(0.7)
    assert found["seer"]["of_oracle"] == pytest.approx(0.45 / 0.7)
    assert {row["selector"]: row["rows"] for row in figures.table()} == {"oracle": 10, "seer": 10}
    assert len([row for row in figures.layer_table("layer") if row["selector"] == "oracle"]) == 3


def test_groups() -> None:
    figures = Figures([layer("a", "seer", 10, 0.5, 0), layer("a", "seer", 10, 0.7, 1)])
    assert [row["mass"] for row in figures.layer_table("layer")] == [0.5, 0.7]
    assert math.isnan(figures.layer_table()[0]["of_oracle"])  # no oracle there
    assert math.isnan(figures.layer_table()[0]["mass_se"])  # one document has no spread


def test_standard_error_of_agreement() -> None:
    figures = Figures(
        outputs=[
            OutputFigure(name, "text", "seer", "1/8", "all", 10, 0.1, top1)
            for name, top1 in (("a", 0.9), ("b", 1.0), ("c", 0.8))
        ]
    )
    row = figures.output_table()[0]
    assert row["top1"] == pytest.approx(0.9)
    assert row["top1_se"] == pytest.approx(0.1 / math.sqrt(3))  # the textbook's, for equal weights
    assert row["kl_se"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("written", "length", "blocks"),
    [
        (1024, 9999, 16),
        ("1000", 100, 15),
        ("1/8", 4096, 8),
        (0.125, 4096, 8),
        ("0.25", 1000, 3),
        ("1/8", 64, 2),
        (1, 640, 2),
    ],
)
def test_budgets(written: str | int | float, length: int, blocks: int) -> None:
    assert Budget.parse(written).blocks(length, 64) == blocks


@pytest.mark.parametrize("written", ["", "some", "0", "-1/8", "1.5", "1/0", "nan"])
def test_what_is_no_budget_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match=r"budgets: .* must be tokens \(1024\) or a share"):
        Budget.parse(written)
