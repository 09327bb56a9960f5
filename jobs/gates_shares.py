"""How a budget is best divided over the layers: measured, and written as options for runs."""

from __future__ import annotations

import dataclasses
import json
import time

import yaml

from seer_ray.config.training import GatesSharesConfig
from seer_ray.driver.measure import REPORT, begin, measuring
from seer_ray.fidelity.division import SharesReport, _report, check_shares, divide
from seer_ray.fidelity.evaluate import Progress
from seer_ray.results.job import TrainFolder
from seer_ray.tracking.tracker import Tracker


def main(config: GatesSharesConfig, progress: Progress = lambda *_: None) -> SharesReport:
    """Measures anew each time, as ``gates_eval`` does.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        Interrupted: SIGINT or SIGTERM.
    """
    check_shares(config)
    began = time.monotonic()
    with measuring(config, "gates shares") as (folder, tracker):
        found = divide(config, progress)
        report = _report(config, folder, found)
        report.elapsed_s = time.monotonic() - began
        begin(tracker, config, found.documents)
        _write(folder, report)
        _track(tracker, report)
    report.tracking_uri = getattr(tracker, "uri", None)
    report.tracking_run_id = getattr(tracker, "run_id", None)
    return report


def _write(folder: TrainFolder, report: SharesReport) -> None:
    """The figures, and each plan as a file for ``seer-ray run --config``."""
    for plan in report.plans[1:]:
        name = f"{plan['name']}.yaml"
        folder.store.write(name, yaml.safe_dump({"selector": plan["selector"]}, sort_keys=False).encode())
        report.files.append(name)
    report.files.append(REPORT)
    folder.store.write(REPORT, json.dumps(dataclasses.asdict(report), indent=1).encode())
    folder.conclude({f"kl/{plan['name']}": plan["kl"] for plan in report.plans})


def _track(tracker: Tracker, report: SharesReport) -> None:
    for plan in report.plans:
        tracker.log({f"kl/{plan['name']}": plan["kl"], f"read/{plan['name']}": plan["read"]}, step=0)
    for row in report.layers:
        metrics = {"by_layer/kl_alone": row["kl"]}
        metrics |= {f"by_layer/read/{plan['name']}": row[plan["name"]]["read"] for plan in report.plans}
        tracker.log(metrics, step=row["layer"])
    for name in ("config.yaml", *report.files):
        tracker.artifact(name)
