"""How good gates are: measured, written to a folder as Parquet, JSON and plots, and told to MLflow."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from seer_ray.config.training import GatesEvalConfig
from seer_ray.driver.measure import REPORT, begin, measuring
from seer_ray.fidelity.evaluate import (
    Evaluation,
    GatesReport,
    Progress,
    _report,
    check_evaluation,
    evaluate,
    flat,
)
from seer_ray.report.gate_plots import draw_gates
from seer_ray.results.job import TrainFolder
from seer_ray.tracking.tracker import Tracker

VALUES = ("recall", "mass", "of_oracle", "worst_of_oracle", "kl", "top1")


def main(config: GatesEvalConfig, progress: Progress = lambda *_: None) -> GatesReport:
    """Measures anew each time: a folder of gates may hold others than before.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        Interrupted: SIGINT or SIGTERM.
    """
    check_evaluation(config)
    began = time.monotonic()
    with measuring(config, "gates eval") as (folder, tracker):
        found = evaluate(config, progress)
        report = _report(config, folder, found)
        report.elapsed_s = time.monotonic() - began
        begin(tracker, config, found.documents)
        _write(folder, report, found)
        _track(tracker, report)
    report.tracking_uri = getattr(tracker, "uri", None)
    report.tracking_run_id = getattr(tracker, "run_id", None)
    return report


def _write(folder: TrainFolder, report: GatesReport, found: Evaluation) -> None:
    store = folder.store
    store.make_folder("plots")
    for plot in draw_gates(report.layers, report.table, list(report.gates)):
        store.write(f"plots/{plot.name}.png", plot.png)
        store.write(f"plots/{plot.name}.svg", plot.svg.encode())
        report.files += [f"plots/{plot.name}.png", f"plots/{plot.name}.svg"]
    for name, rows in (("layers", found.figures.layers), ("outputs", found.figures.outputs)):
        if rows:
            store.write(f"{name}.parquet", _parquet(rows))
            report.files.append(f"{name}.parquet")
    report.files.append(REPORT)
    store.write(REPORT, json.dumps(dataclasses.asdict(report), indent=1).encode())
    folder.conclude(flat(report.table, VALUES))


def _parquet(rows: Sequence[Any]) -> bytes:
    """One figure a row, of one document each."""
    out = io.BytesIO()
    parquet.write_table(
        pa.Table.from_pylist([dataclasses.asdict(row) for row in rows]), out, compression="zstd"
    )
    return out.getvalue()


def _track(tracker: Tracker, report: GatesReport) -> None:
    tracker.log(flat(report.table, VALUES), step=0)
    for layer in sorted({row["layer"] for row in report.layers}):
        rows = [row for row in report.layers if row["layer"] == layer]
        metrics = flat(rows, ("recall", "mass", "of_oracle"))
        tracker.log({f"by_layer/{name}": value for name, value in metrics.items()}, step=layer)
    for name in ("config.yaml", *report.files):
        tracker.artifact(name)
