from __future__ import annotations

import contextlib
import errno
import json
import logging
import shutil
import socket
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracking.conftest import Database

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, TrackingConfig
from seer_ray.results import lock
from seer_ray.results.folder import RunFolder
from seer_ray.tracking import mlflow_tracker, pump
from seer_ray.tracking.connect import reason
from seer_ray.tracking.database import make
from seer_ray.tracking.mlflow_tracker import MLflowTracker, catch_up, open_tracker
from seer_ray.tracking.spool import Sent
from seer_ray.tracking.tracker import Dataset, NullTracker

DATASET = Dataset("gsm8k", "0123abcd", "data/gsm8k.jsonl", 64)
PARAMS = {"selector.budget": 2048, "task.system": "x" * 7000, "cluster.workers": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(str(tmp_path / "run"), RunConfig(seed=0)) as found:
        yield found


def tracker(folder: RunFolder, uri: str) -> MLflowTracker:
    return MLflowTracker(folder, folder.run_id, uri)


def runs(database: Database, folder: RunFolder) -> list[Any]:
    client = database.client
    experiment = client.get_experiment_by_name(folder.run_id)
    return client.search_runs([experiment.experiment_id]) if experiment else []


def history(database: Database, run_id: str, name: str) -> list[tuple[int, float, int]]:
    found = database.client.get_metric_history(run_id, name)
    return sorted((metric.step, metric.value, metric.timestamp) for metric in found)


def test_a_quiet_job_on_the_default_store(database: Database) -> None:
    """In a new working directory: the database is made there, and MLflow prints nothing."""
    assert (database.made.returncode, database.made.stdout, database.made.stderr) == (0, "", "")
    (run,) = database.client.search_runs([database.client.get_experiment_by_name("seer-ray").experiment_id])
    assert run.info.run_name == "quiet" and run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith((database.folder / "mlruns").as_uri())


def test_a_run_from_start_to_end(database: Database, folder: RunFolder) -> None:
    job = tracker(folder, database.uri)
    job.start("a-run", PARAMS, DATASET)
    job.log({"rows/done": 3, "accuracy/avg": 0.5, "accuracy/stderr": None}, step=3, timestamp=1000.5)
    job.log({"rows/done": 6, "accuracy/avg": 0.25}, step=6, timestamp=1001.0)
    folder.write_json("metrics.json", {"accuracy/avg": 0.25})
    job.artifact("metrics.json")
    job.artifact("config.yaml")
    job.artifact("report.html")  # was never made
    job.finish()
    (run,) = runs(database, folder)
    assert run.info.run_id == job.run_id
    assert (run.info.run_name, run.info.status) == ("a-run", "FINISHED")
    assert run.data.params == {
        "selector.budget": "2048",
        "task.system": "x" * 6000,
        "cluster.workers": "2",
    }
    assert run.data.tags["seer_ray.run"] == str(folder.path)
    assert run.data.tags["version.pyarrow"]
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("gsm8k", "0123abcd")
    assert json.loads(dataset.dataset.profile) == {"num_rows": 64}
    assert history(database, run.info.run_id, "accuracy/avg") == [(3, 0.5, 1000500), (6, 0.25, 1001000)]
    assert "accuracy/stderr" not in run.data.metrics
    artifacts = {artifact.path for artifact in database.client.list_artifacts(run.info.run_id)}
    assert artifacts == {"metrics.json", "config.yaml"}
    assert catch_up(folder) == 0


def test_a_resumed_run_goes_on(database: Database, folder: RunFolder) -> None:
    first = tracker(folder, database.uri)
    first.start("a-run", PARAMS, DATASET)
    first.log({"rows/done": 1}, step=1, timestamp=1.0)
    first.finish("FAILED")
    second = tracker(folder, database.uri)
    second.start("a-run", {**PARAMS, "cluster.workers": 4, "cluster.num_cpus": 1}, DATASET)
    second.log({"rows/done": 2}, step=2, timestamp=2.0)
    second.finish()
    (run,) = runs(database, folder)
    assert run.info.run_id == first.run_id == second.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["cluster.workers"] == "2" and run.data.params["cluster.num_cpus"] == "1"
    assert run.data.tags["seer_ray.resumed_with"] == "cluster.workers=4"
    assert len(run.inputs.dataset_inputs) == 1
    assert history(database, run.info.run_id, "rows/done") == [(1, 1.0, 1000), (2, 2.0, 2000)]


@pytest.mark.parametrize("lost", ["note", "file"])
def test_what_is_sent_twice_is_there_once(database: Database, folder: RunFolder, lost: str) -> None:
    """Killed between the sending and the note of it."""
    job = tracker(folder, database.uri)
    job.start("a-run", PARAMS, DATASET)
    for step in range(5):
        job.log({"rows/done": step, "x": 1.0}, step, timestamp=float(step))
    job.finish()
    (run,) = runs(database, folder)
    if lost == "note":
        job.spool.save(Sent(**{**job.spool.sent().__dict__, "offset": 0}))
    else:
        (job.spool.folder / "sent.json").unlink()
    again = tracker(folder, database.uri)
    again.start("a-run", PARAMS, DATASET)
    again.finish()
    (same,) = runs(database, folder)
    assert same.info.run_id == run.info.run_id == again.run_id
    assert len(history(database, run.info.run_id, "rows/done")) == 5
    assert len(history(database, run.info.run_id, "x")) == 5


def test_a_resumed_run_runs(database: Database, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracker(folder, database.uri)
    first.start("a-run", PARAMS)
    first.finish("FAILED")
    assert runs(database, folder)[0].info.status == "FAILED"
    monkeypatch.setattr(pump.Pump, "start", lambda self: None)
    second = tracker(folder, database.uri)
    second.start("a-run", PARAMS)
    assert second._pump is not None
    while second._pump._senders[0].step():
        pass
    assert runs(database, folder)[0].info.status == "RUNNING"


def test_more_metrics_than_a_batch_takes(
    database: Database, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = MlflowClient.log_batch

    def log_batch(client: Any, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        sizes.extend((len(metrics), 10 * len(params)))
        real(client, run_id, metrics, params, tags)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    job = tracker(folder, database.uri)
    job.start("a-run", {f"p{i}": i for i in range(205)})
    for step in range(250):
        job.log({f"m{i}": float(step) for i in range(9)}, step, timestamp=float(step))
    job.finish()
    (run,) = runs(database, folder)
    assert len(run.data.params) == 205
    assert max(sizes) <= 1000
    for name in ("m0", "m8"):
        assert [value for _, value, _ in history(database, run.info.run_id, name)] == list(range(250))


def test_what_mlflow_never_takes_stops_nothing(
    database: Database, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    job = tracker(folder, database.uri)
    job.start("a-run", {})
    job.log({"pass@1": 1.0}, step=1)
    job.artifact("config.yaml")
    job.log({"fine": 2.0}, step=2)
    with caplog.at_level(logging.WARNING, "seer_ray"):
        job.finish()
    (run,) = runs(database, folder)
    assert run.data.metrics == {"fine": 2.0} and run.info.status == "FINISHED"
    assert any("does not take an update" in record.message for record in caplog.records)


def test_a_deleted_run_is_told_again(database: Database, folder: RunFolder) -> None:
    for step in (1, 2):
        job = tracker(folder, database.uri)
        job.start("a-run", PARAMS)
        job.log({"rows/done": step}, step)
        job.finish()
        if step == 1:
            deleted = job.run_id
            database.client.delete_run(deleted)
    (run,) = runs(database, folder)
    assert run.info.run_id == job.run_id != deleted
    assert [step for step, _, _ in history(database, run.info.run_id, "rows/done")] == [1, 2]
    assert run.info.status == "FINISHED"


def test_a_server_that_is_down_is_told_later(
    database: Database, folder: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "away"
    place.write_text("no folder, so no database can be opened in it")
    uri = f"sqlite:///{place}/mlflow.db"
    job = tracker(folder, uri)
    with caplog.at_level(logging.WARNING, "seer_ray"):
        job.start("a-run", PARAMS, DATASET)
        for step in range(3):
            job.log({"rows/done": step}, step, timestamp=float(step))
        job.finish()
    assert [record.message.partition(" (")[0] for record in caplog.records[:1]] == [
        f"MLflow at {uri} does not answer"
    ]
    assert caplog.records[-1].message.startswith(
        f"5 updates are not in MLflow at {uri} yet; they are kept in"
    )
    assert len(caplog.records) == 2 and all("\n" not in record.message for record in caplog.records)
    view = RunFolder.view(folder.uri)
    assert catch_up(view) == 5
    place.unlink()
    place.mkdir()
    shutil.copy(database.folder / "mlflow.db", place)
    assert catch_up(view, patience=60) == 0
    assert catch_up(view) == 0
    back = Database(place, database.made)
    (run,) = runs(back, folder)
    assert history(back, run.info.run_id, "rows/done") == [(i, float(i), 1000 * i) for i in range(3)]
    assert run.info.status == "FINISHED"


def test_a_read_only_database_loses_nothing(
    database: Database, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    job = tracker(folder, f"sqlite:///file:{database.folder}/mlflow.db?mode=ro&uri=true")
    with caplog.at_level(logging.WARNING, "seer_ray"):
        job.start("a-run", PARAMS)
        job.log({"rows/done": 1}, 1)
        job.finish()
    assert "readonly" in caplog.records[0].message
    assert runs(database, folder) == []
    # Another address is told all from the beginning.
    job = tracker(folder, database.uri)
    job.start("a-run", PARAMS)
    job.log({"rows/done": 2}, 2)
    job.finish()
    (run,) = runs(database, folder)
    assert [step for step, _, _ in history(database, run.info.run_id, "rows/done")] == [1, 2]


@pytest.mark.parametrize("named_by", ["option", "environment"])
def test_a_finished_run_is_told_to_another_address(
    database: Database, folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    first = Database(tmp_path, database.made)
    shutil.copy(database.folder / "mlflow.db", tmp_path)
    job = tracker(folder, first.uri)
    job.start("a-run", PARAMS, DATASET)
    for step in range(3):
        job.log({"rows/done": step}, step, timestamp=float(step))
    job.artifact("config.yaml")
    job.finish()
    assert job.place == (first.uri, job.run_id) and runs(database, folder) == []
    assert catch_up(folder, to=TrackingConfig(enabled=False, uri=database.uri)) == 0
    assert catch_up(folder, to=TrackingConfig()) == 0
    assert runs(database, folder) == [], "where it was sent before is where it stays"
    to = TrackingConfig(uri=database.uri if named_by == "option" else None)
    if named_by == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    assert catch_up(folder, to=to, patience=60) == 0
    (run,) = runs(database, folder)
    assert run.data.params["selector.budget"] == "2048" and run.info.status == "FINISHED"
    assert history(database, run.info.run_id, "rows/done") == [(i, float(i), 1000 * i) for i in range(3)]
    assert [file.path for file in database.client.list_artifacts(run.info.run_id)] == ["config.yaml"]
    assert tracker(folder, database.uri).place == (database.uri, run.info.run_id)


def test_nobody_is_named_who_was_told_nothing(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "away").write_text("no folder")
    job = tracker(folder, f"sqlite:///{tmp_path}/away/mlflow.db")
    job.start("a-run", PARAMS)
    job.finish()
    assert job.place == (None, None)


@pytest.mark.parametrize("when", ["made", "copied"])
def test_a_database_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Half:
        def __init__(self, uri: str) -> None:
            self.path = Path(uri.removeprefix("sqlite:///"))

        def search_experiments(self, max_results: int) -> None:
            with contextlib.closing(sqlite3.connect(self.path)) as database:
                database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
            if when == "made":
                raise OSError(errno.ENOSPC, "No space left on device")

    def link(source: Path, target: Path) -> None:
        assert source.exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlflow.MlflowClient", Half)
    monkeypatch.setattr("os.link", link)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path / "mlflow.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "torn"),
    [
        ("(sqlite3.OperationalError) table _alembic_tmp_experiments already exists", True),
        ("(sqlite3.OperationalError) no such table: experiments", True),
        ("(sqlite3.OperationalError) no such column: runs.lifecycle_stage", True),
        ("(sqlite3.DatabaseError) file is not a database", True),
        ("(sqlite3.DatabaseError) database disk image is malformed", True),
        (
            "Detected out-of-date database schema (found version 451aebb31d03, but expected f5a4f2784254)",
            True,
        ),
        ("Can't locate revision identified by '0123'", True),
        ("(sqlite3.OperationalError) database is locked", False),
        ("(sqlite3.OperationalError) database or disk is full", False),
        ("(sqlite3.OperationalError) attempt to write a readonly database", False),
    ],
)
def test_a_file_that_is_not_whole_is_named(said: str, torn: bool) -> None:
    told = "; /data/mlflow.db is not whole: move it away, and resume: a new one is told everything"
    assert reason(Exception(said), "sqlite:////data/mlflow.db") == said + told * torn
    assert reason(Exception(said), "postgresql://host/mlflow") == said


def test_a_nested_run_comes_after_the_one_around_it(
    database: Database, folder: RunFolder, tmp_path: Path
) -> None:
    place = tmp_path / "away"
    place.write_text("no folder, so no database can be opened in it")
    around = tracker(folder, f"sqlite:///{place}/mlflow.db")
    with RunFolder.open(str(tmp_path / "inner"), RunConfig(seed=1)) as inner:
        nested = MLflowTracker(inner, around.experiment, around.uri, around)
        around.start("sweep", {"seed": 0})
        nested.start("point", {"seed": 1})
        nested.log({"rows/done": 3}, 3)
        nested.finish("FAILED")
        around.log({"points": 1}, 1)
        around.finish()
    place.unlink()
    place.mkdir()
    shutil.copy(database.folder / "mlflow.db", place)
    assert catch_up(RunFolder.view(inner.uri)) == 3, "there is nothing yet to nest it in"
    assert catch_up(folder, patience=60) == 0
    assert catch_up(RunFolder.view(inner.uri), patience=60) == 0
    found = {run.info.run_name: run for run in runs(Database(place, database.made), folder)}
    parent, child = found["sweep"], found["point"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.info.status, child.data.metrics) == ("FAILED", {"rows/done": 3.0})
    assert (parent.info.status, parent.data.metrics) == ("FINISHED", {"points": 1.0})


def test_a_server_that_hangs_holds_up_nothing(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes connections and never answers: all that is logged is on disk while the first request hangs."""
    monkeypatch.setattr(mlflow_tracker, "GRACE", 0.0)
    monkeypatch.setattr(mlflow_tracker, "SHORT_GRACE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        job = tracker(folder, f"http://127.0.0.1:{server.getsockname()[1]}")
        job.start("a-run", PARAMS)
        connection, _ = server.accept()
        for step in range(1000):
            job.log({"rows/done": step}, step)
        assert job.spool.unsent() == 1001
        assert catch_up(RunFolder.view(folder.uri)) == 1001, "the job itself is at it"
        job.finish()
        connection.close()
    assert job.spool.unsent() == 1002
    assert "1002 updates are not in MLflow at http://127.0.0.1" in caplog.records[-1].message


def test_a_password_is_not_kept(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    job = tracker(folder, "http://user:secret@127.0.0.1:9")
    job.start("a-run", {})
    job.finish()
    assert job.spool.unsent() == 2
    assert "does not answer ([Errno 111] Connection refused);" in caplog.text
    assert "secret" not in "".join(path.read_text() for path in job.spool.folder.iterdir())
    assert "secret" not in caplog.text


def test_a_remote_run_folder_spools_on_this_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    with RunFolder.open(f"fsspec+memory://{uuid.uuid4().hex}/run", RunConfig(seed=0)) as folder:
        job = tracker(folder, database.uri)
        job.start("a-run", {})
        job.artifact("config.yaml")
        job.finish()
        (run,) = runs(database, folder)
        assert [a.path for a in database.client.list_artifacts(run.info.run_id)] == ["config.yaml"]
        assert (tmp_path / "seer-ray" / folder.run_id / "spool.jsonl").exists()


def test_a_spool_that_cannot_be_written_ends_no_job(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    assert folder.path is not None
    (folder.path / "tracking").write_text("in the way")
    job = tracker(folder, "http://127.0.0.1:9")
    job.start("a-run", {})
    job.log({"x": 1}, 1)
    job.artifact("config.yaml")
    job.finish()
    assert len(caplog.records) == 1 and "MLflow misses updates: cannot write" in caplog.text


def test_tracking_switched_off(folder: RunFolder) -> None:
    job = open_tracker(folder, TrackingConfig(enabled=False, uri="nonsense"))
    assert isinstance(job, NullTracker)
    job.start("a-run", {})
    job.log({"x": 1}, 1)
    job.artifact("config.yaml")
    job.finish()
    assert catch_up(folder) == 0
    assert folder.path is not None and not (folder.path / "tracking").exists()


def test_a_wrong_address_is_the_users_to_mend(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri=nonsense://x"):
        open_tracker(folder, TrackingConfig(uri="nonsense://x"))
