"""How good gates are: measured, written to a folder as Parquet, JSON and plots, and told to MLflow."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from seer_ray.config.training import GatesEvalConfig
from seer_ray.driver.measure import MeasureSummary, Measuring, begin, conclude, measuring
from seer_ray.fidelity.evaluate import Evaluation, check_evaluation, evaluate, flat
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
    layers: list[dict[str, Any]] = field(default_factory=list)
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
    with measuring(config, reporter) as (frame, progress):
        found = evaluate(config, progress)
        several = len({document.source for document in found.documents}) > 1
        summary = GatesSummary(
            **begin(frame, found),
            gates=found.gates,
            table=found.figures.table(),
            sources=found.figures.table("source") if several else [],
            layers=found.figures.layer_table("layer"),
        )
        _write(frame, summary, found)
        _track(frame, summary)
        conclude(frame, summary, flat(summary.table, VALUES))
    frame.finish(summary)
    return summary


def _write(frame: Measuring, summary: GatesSummary, found: Evaluation) -> None:
    store = frame.folder.store
    for name, rows in (("layers", found.figures.layers), ("outputs", found.figures.outputs)):
        if rows:
            store.write(f"{name}.parquet", _parquet(rows))
            summary.files.append(f"{name}.parquet")


def _parquet(rows: Sequence[Any]) -> bytes:
    """One figure a row, of one document each."""
    out = io.BytesIO()
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows])
    parquet.write_table(table, out, compression="zstd")
    return out.getvalue()


def _track(frame: Measuring, summary: GatesSummary) -> None:
    frame.tracker.log(flat(summary.table, VALUES), step=0)
    for layer in sorted({row["layer"] for row in summary.layers}):
        rows = [row for row in summary.layers if row["layer"] == layer]
        metrics = flat(rows, ("recall", "mass", "of_oracle"))
        frame.tracker.log({f"by_layer/{name}": value for name, value in metrics.items()}, step=layer)
