"""How good gates are: measured, written to a folder as Parquet, JSON and plots, and told to MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.measuring import GatesEvalConfig
from seer_ray.driver.measure import (
    MeasurePlan,
    MeasureSummary,
    Measuring,
    measured,
    plan_of,
    write_figures,
)
from seer_ray.fidelity.evaluate import Evaluation, check_evaluation, evaluate, flat, gate_sources
from seer_ray.status.live import MeasureLive, Reporter

VALUES = ("recall", "mass", "of_oracle", "worst_of_oracle", "kl", "top1")


@dataclass
class GatesSummary(MeasureSummary):
    """What an evaluation of gates came to. Rows are those of ``fidelity.figures.Figures``."""

    gates: dict[str, str] = field(default_factory=dict)
    """Label -> where the set was."""
    table: list[dict[str, Any]] = field(default_factory=list)
    """By positions, budget and selector."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """The same by source, where there are several."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """``kl`` and ``top1`` of sharp and of flat rows: see ``fidelity.quality.LayerQuality.sharp``."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """By layer too."""
    calibration: list[dict[str, Any]] = field(default_factory=list)
    """By selector whose scores are shares, and level: the mass ``predicted`` and ``kept``."""
    calibration_layers: list[dict[str, Any]] = field(default_factory=list)
    """By layer too."""


def main(
    config: GatesEvalConfig, reporter: Reporter[MeasureLive, GatesSummary] | None = None
) -> GatesSummary:
    """Measures anew each time: a folder of gates may hold others than before.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    check_evaluation(config)
    return measured(config, reporter, evaluate, _summary)


def plan(config: GatesEvalConfig) -> MeasurePlan:
    """What the job would do; reads no document and no weights."""
    check_evaluation(config)
    return plan_of(config, [*gate_sources(config), *config.selectors])


def _summary(
    frame: Measuring, found: Evaluation, facts: dict[str, Any]
) -> tuple[GatesSummary, dict[str, float]]:
    figures, several = found.figures, len({document.source for document in found.documents}) > 1
    summary = GatesSummary(
        **facts,
        gates=found.gates,
        table=figures.table(),
        sources=figures.table("source") if several else [],
        rows=figures.kinds_table(),
        layers=figures.layer_table("layer"),
        calibration=figures.calibration_table(),
        calibration_layers=figures.calibration_table("layer"),
    )
    parts = {name: getattr(figures, name) for name in ("layers", "outputs", "calibration")}
    summary.files += write_figures(frame, parts)
    _track(frame, summary)
    return summary, flat(summary.table, VALUES)


def _track(frame: Measuring, summary: GatesSummary) -> None:
    frame.tracker.log(flat(summary.table, VALUES), step=0)
    for layer in sorted({row["layer"] for row in summary.layers}):
        rows = [row for row in summary.layers if row["layer"] == layer]
        metrics = flat(rows, ("recall", "mass", "of_oracle"))
        frame.tracker.log({f"by_layer/{name}": value for name, value in metrics.items()}, step=layer)
