"""A sweep whose MLflow is away, silent, slow, read-only or broken goes on, and the next command tells all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs.sweeps import folder, rows, run, states
from mlflow import MlflowClient
from mlflow_server import Mode, Server

from seer_ray.analysis.metrics import tracked
from seer_ray.config.options import SweepConfig
from seer_ray.results.folder import RunFolder
from seer_ray.tracking import mlflow_tracker
from seer_ray.tracking.mlflow_tracker import unsent
from seer_ray.tracking.spool import Spool

pytestmark = pytest.mark.usefixtures("local_ray")

OVERRIDES = ("selector=quest", "selector.budget=32,64")
POINTS = ["dense", "quest-32", "quest-64"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end a job waits some seconds for MLflow: here not at all."""
    monkeypatch.setattr(mlflow_tracker, "GRACE", 0.0)
    monkeypatch.setattr(mlflow_tracker, "SHORT_GRACE", 0.0)


def track(base: SweepConfig, uri: str, experiment: str) -> None:
    base.tracking.enabled, base.tracking.uri, base.tracking.interval = True, uri, 0.1
    base.tracking.experiment = experiment


def folders(base: SweepConfig) -> dict[str, Any]:
    """The sweep's, and its points'."""
    points = {slug: RunFolder.view(f"{folder(base).uri}/points/{slug}") for slug in POINTS}
    return {"sw": folder(base), **points}


def events(base: SweepConfig, name: str) -> list[dict[str, Any]]:
    """What the disk has for MLflow."""
    folder = folders(base)[name]
    found = [event for event, _ in Spool(folder.path / "tracking", folder.run_id).read(0, 10**6)]
    assert None not in found
    return found  # type: ignore[return-value]


def wait_for_the_sender() -> None:
    """What would have ended with the process of the sweep."""
    for thread in threading.enumerate():
        if thread.name == "mlflow":
            thread.join(60)
            assert not thread.is_alive()


def check_complete(base: SweepConfig) -> None:
    """MLflow knows all that the spools say: the parent, its children, every metric at every moment."""
    assert unsent(*folders(base).values()) == 0
    client = MlflowClient(str(base.tracking.uri))
    experiment = client.get_experiment_by_name(base.tracking.experiment)
    assert experiment is not None
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"sw", *POINTS}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    parent = found["sw"]
    assert parent.data.metrics["sweep/points_done"] == 3
    assert {found[slug].data.tags["mlflow.parentRunId"] for slug in POINTS} == {parent.info.run_id}
    for name, known in found.items():
        told: dict[str, set[tuple[float, int, int]]] = {}
        for event in events(base, name):
            for metric, value in event["values"].items() if event["kind"] == "metrics" else ():
                told.setdefault(metric, set()).add((value, event["step"], event["time"]))
        assert set(told) == set(known.data.metrics)
        for metric in ("rows/total", "live/workers"):
            history = client.get_metric_history(known.info.run_id, metric)
            assert {(point.value, point.step, point.timestamp) for point in history} == told[metric]
        artifacts = {artifact.path for artifact in client.list_artifacts(known.info.run_id)}
        assert artifacts >= {"config.yaml", "sweep.json" if name == "sw" else "metrics.json"}
    for slug in POINTS:
        final, child = folders(base)[slug].read_json("metrics.json"), found[slug].data
        assert tracked(final) == {name: pytest.approx(child.metrics[name]) for name in tracked(final)}
        assert final["rows/total"] == 6 and child.params["selector.name"] in slug


LONG: list[Any] = [pytest.param(mode, marks=pytest.mark.long) for mode in ("slow", "read-only")]


@pytest.mark.parametrize("mode", ["silent", "broken", *LONG])
def test_a_server_that_behaves_badly(base: SweepConfig, server: Server, mode: Mode) -> None:
    track(base, server.uri, mode)
    server.mode, before = mode, server.answered
    assert run(base, *OVERRIDES).failed == []
    answered = server.answered - before
    assert states(base) == dict.fromkeys(POINTS, "done")
    assert [len(rows(base, slug)) for slug in POINTS] == [6, 6, 6]
    kinds = {name: [event["kind"] for event in events(base, name)] for name in folders(base)}
    for said in kinds.values():
        assert (said[0], said[-1]) == ("start", "finish") and said.count("metrics") >= 2
    left, total = unsent(*folders(base).values()), sum(map(len, kinds.values()))
    if mode == "slow":
        assert 0 < left <= total
    else:
        assert left == total, "MLflow took nothing, and all is on disk"
    if mode in ("silent", "broken"):
        assert answered == 0, "the sweep came to its end without a word from MLflow"
    server.mode = "broken"
    wait_for_the_sender()
    server.mode = "well"
    run(base, *OVERRIDES, build=None)
    check_complete(base)


def test_a_database_that_was_out_of_reach(base: SweepConfig, tmp_path: Path) -> None:
    place = tmp_path / "away"
    place.write_text("no folder, so no database can be opened in it")
    track(base, f"sqlite:///{place}/mlflow.db", "away")
    assert run(base, *OVERRIDES).failed == []
    wait_for_the_sender()
    place.unlink()
    place.mkdir()
    run(base, *OVERRIDES, build=None)
    check_complete(base)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a person reads; the server talks too."""
    return [record.message for record in caplog.records if record.name.startswith("seer_ray")]


def test_a_server_that_is_away_again_is_told_of_in_one_line(
    base: SweepConfig, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    track(base, server.uri, "again")
    server.mode = "broken"
    run(base, *OVERRIDES)
    assert told(caplog)[-1].endswith(f"sent by: seer-ray resume {folder(base).uri}")
    wait_for_the_sender()
    left = unsent(*folders(base).values())
    caplog.clear()
    run(base, *OVERRIDES, build=None)
    assert unsent(*folders(base).values()) == left
    (line,) = told(caplog)
    assert line.startswith(f"MLflow at {server.uri} does not answer (") and "\n" not in line
