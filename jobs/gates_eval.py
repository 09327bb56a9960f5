"""How good gates are: measured, written to a folder as Parquet, JSON and plots, and told to MLflow."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from seer_ray.analysis.gate_plots import draw_gates
from seer_ray.jobs.measuring import REPORT, begin, measuring
from seer_ray.tracking.tracker import Tracker
from seer_ray.training.evaluation import Evaluation, Progress, check_evaluation, evaluate, flat
from seer_ray.training.folder import TrainFolder
from seer_ray.training.options import GatesEvalConfig

VALUES = ("recall", "mass", "of_oracle", "worst_of_oracle", "kl", "top1")


@dataclass
class GatesReport:
    """What an evaluation of gates came to. Rows are those of ``seer_ray.training.figures.Figures``."""

    name: str
    folder: str
    model: str
    gates: dict[str, str]
    """Label -> where the set was."""
    block_size: int
    documents: int
    tokens: int
    table: list[dict[str, Any]]
    """By positions, budget and selector."""
    sources: list[dict[str, Any]]
    """The same by source, where there are several."""
    layers: list[dict[str, Any]]
    """By layer too."""
    files: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0
    tracking_uri: str | None = None
    tracking_run_id: str | None = None


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


def _report(config: GatesEvalConfig, folder: TrainFolder, found: Evaluation) -> GatesReport:
    figures = found.figures
    several = len({document.source for document in found.documents}) > 1
    return GatesReport(
        name=str(config.name),
        folder=folder.uri,
        model=config.model.name,
        gates=found.gates,
        block_size=found.block_size,
        documents=len(found.documents),
        tokens=found.tokens,
        table=figures.table(),
        sources=figures.table("source") if several else [],
        layers=figures.layer_table("layer"),
    )


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
