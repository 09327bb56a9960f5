"""The temperature of a gate set: fitted, and written as a set that has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.measuring import GatesCalibrateConfig
from seer_ray.driver.measure import MeasurePlan, MeasureSummary, Measuring, measured, plan_of
from seer_ray.fidelity.temperature import AFTER, Calibration, calibrate, check_calibration
from seer_ray.models.gates import temper_gates
from seer_ray.status.live import MeasureLive, Reporter
from seer_ray.training.product import write_product

PRODUCT = "gates"
"""Folder of the set that has the temperatures."""


@dataclass
class CalibrateSummary(MeasureSummary):
    """What a fit of temperatures came to, on the text that it was fitted on."""

    gates: str = ""
    temperatures: list[list[float]] = field(default_factory=list)
    """Of each layer that has a gate, and of its KV heads."""
    calibration: list[dict[str, Any]] = field(default_factory=list)
    """``predicted`` and ``kept`` mass by ``level``, before and after (``selector``)."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """By layer too."""


def main(
    config: GatesCalibrateConfig, reporter: Reporter[MeasureLive, CalibrateSummary] | None = None
) -> CalibrateSummary:
    """Fits anew each time, as ``gates_eval`` measures.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    check_calibration(config)
    return measured(config, reporter, calibrate, _summary)


def plan(config: GatesCalibrateConfig) -> MeasurePlan:
    """What the job would do; reads no document and no weights."""
    return plan_of(config, [check_calibration(config)])


def _summary(
    frame: Measuring, found: Calibration, facts: dict[str, Any]
) -> tuple[CalibrateSummary, dict[str, float]]:
    temperatures = found.temperatures
    summary = CalibrateSummary(
        **facts,
        gates=found.gates,
        temperatures=[list(heads) for heads in temperatures],
        calibration=found.table(),
        layers=found.by_layer(),
    )
    store = frame.folder.store
    write_product(store, PRODUCT, lambda folder: temper_gates(found.gates, folder, temperatures))
    fitted = [row for row in summary.calibration if row["selector"] == AFTER]
    metrics = {f"kept/{row['level']:g}": row["kept"] for row in fitted}
    frame.tracker.log(metrics, step=0)
    return summary, metrics
