"""A run's rows in MLflow: a table, and traces with their grades; there once, however often they are told."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from analysis.made_runs import EVIL, make_run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
from mlflow.tracing.client import TracingClient
from tracking.conftest import Database

from seer_ray.results.folder import RunFolder
from seer_ray.tracking import mlflow_tracker, system
from seer_ray.tracking.completions import sample_of
from seer_ray.tracking.mlflow_tracker import MLflowTracker
from seer_ray.tracking.spool import Sent
from seer_ray.tracking.system import SystemMetrics

SECRET = "https://user:hunter2hunter2@example.org/x"
TRACED = [("p0", 0), ("p2", 0), ("p3", 1), (EVIL + SECRET, 1)]


@pytest.fixture(autouse=True)
def all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """That MLflow needs, on a machine that has other work."""
    monkeypatch.setattr(mlflow_tracker, "GRACE", 300.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = make_run(tmp_path / "runs", "quest", 48, problems=6, evil=EVIL + SECRET)
    return RunFolder.view(str(run))


def tell(folder: RunFolder, database: Database, experiment: str, traced: list[tuple[str, int]]) -> str:
    """Sends all there is. Returns MLflow's id of the run."""
    job = MLflowTracker(folder, experiment, database.uri)
    job.start("a-run", {})
    job.completions(traced)
    job.finish()
    assert job.spool.unsent() == 0 and job.run_id is not None
    return job.run_id


def traces(database: Database, experiment: str) -> dict[str, Any]:
    found = database.client.get_experiment_by_name(experiment)
    return {t.info.tags["mlflow.traceName"]: t for t in database.client.search_traces([found.experiment_id])}


def test_table_and_traces(database: Database, folder: RunFolder, tmp_path: Path) -> None:
    run_id = tell(folder, database, "told", TRACED[:3])
    run = database.client.get_run(run_id)
    (said,) = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert said == {"path": "completions.json", "type": "table"}
    file = database.client.download_artifacts(run_id, "completions.json", str(tmp_path))
    table = json.loads(Path(file).read_text())
    rows = [dict(zip(table["columns"], values, strict=True)) for values in table["data"]]
    assert len(rows) == 12 and {row["problem_id"] for row in rows if row["error"]} == {"p2"}
    assert "hunter2" not in json.dumps(table) and "https://***@example.org" in json.dumps(table)
    found = traces(database, "told")
    assert set(found) == {"p0/0", "p2/0", "p3/1"}
    whole = folder.pick([("p0", 0)], ["completion", "correct", "prompt_tokens", "decode_s"]).to_pylist()[0]
    one = database.client.get_trace(found["p0/0"].info.trace_id)
    assert one.info.trace_metadata["mlflow.sourceRun"] == run_id
    assert one.info.token_usage["input_tokens"] == whole["prompt_tokens"]
    root, *parts = one.data.spans
    assert [span.name for span in parts] == ["queued", "prefill", "decode", "grade"]
    assert root.outputs["choices"][0]["message"]["content"] == whole["completion"]
    decode = parts[2]
    assert (decode.end_time_ns - decode.start_time_ns) / 1e9 == pytest.approx(whole["decode_s"])
    grades = {one.name: one.value for one in one.info.assessments}
    assert grades == {"expected_response": "0", "correct": whole["correct"]}
    assert found["p2/0"].info.state == "ERROR"


def test_told_twice_they_are_there_once(database: Database, folder: RunFolder) -> None:
    tell(folder, database, "twice", TRACED)
    job = MLflowTracker(folder, "twice", database.uri)
    job.spool.save(Sent(**{**job.spool.sent().__dict__, "offset": 0}))
    tell(folder, database, "twice", TRACED)
    found = traces(database, "twice")
    assert set(found) == {"p0/0", "p2/0", "p3/1"}, "an id with a password in it is not kept, so not found"
    assert all(len(trace.info.assessments) <= 2 for trace in found.values())


def test_a_server_without_traces_is_told_the_rest(
    database: Database, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []

    def start_trace(self: Any, info: Any) -> None:
        asked.append(info)
        raise MlflowException("no such endpoint", error_code=ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(TracingClient, "start_trace", start_trace)
    with caplog.at_level(logging.WARNING, "seer_ray"):
        run_id = tell(folder, database, "old", TRACED)
    run = database.client.get_run(run_id)
    assert run.info.status == "FINISHED" and "mlflow.loggedArtifacts" in run.data.tags
    assert len(asked) == 1, "it is asked once"
    (line,) = [record.message for record in caplog.records]
    assert "cannot take a trace" in line and "\n" not in line


def test_a_sample_is_spread_over_the_problems() -> None:
    keys = [(f"p{n:02}", sample) for sample in (1, 0) for n in range(12)]
    assert sample_of(keys, 4) == [("p00", 0), ("p03", 0), ("p06", 0), ("p09", 0)]
    assert sample_of(keys[::-1], 4) == sample_of(keys, 4)
    assert set(sample_of(keys, 12)) == {key for key in keys if key[1] == 0}
    assert sample_of(keys, 100) == sorted(keys, key=lambda key: (key[1], key[0]))
    assert sample_of(keys, 0) == [] and sample_of([], 5) == []


class Monitor:
    """One of MLflow's."""

    def collect_metrics(self) -> None: ...

    def clear_metrics(self) -> None: ...

    def aggregate_metrics(self) -> dict[str, float]:
        return {"cpu_utilization_percentage": 50.0}


class Broken(Monitor):
    def collect_metrics(self) -> None:
        raise OSError("the disk is gone")


def test_system_metrics_are_metrics_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(system.SWITCH, "true")
    monkeypatch.setenv(system.INTERVAL, "0.01")
    monkeypatch.setattr(system, "_monitors", lambda: [Broken(), Monitor()])
    told, twice = [], threading.Event()

    def log(metrics: dict[str, float | None], step: int) -> None:
        told.append((metrics, step))
        if len(told) == 2:
            twice.set()

    metrics = SystemMetrics(log, 0.0)
    metrics.start()
    assert twice.wait(60)
    metrics.stop()
    count = len(told)
    metrics.stop()
    assert len(told) == count, "nothing after the end"
    assert all(values == {"system/cpu_utilization_percentage": 50.0} for values, _ in told)
    assert told[0][1] > 10**9, "seconds since the job was made"
