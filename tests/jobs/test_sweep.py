"""Sweeps with real Ray, results and grading; only their engine needs no model."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_engine
import pytest
from fake_engine import expected_tokens, make_request
from mlflow import MlflowClient
from tiny import save_tiny

from seer_ray.analysis.racing import Decision, Verdict
from seer_ray.cluster import Interrupted
from seer_ray.compose import to_yaml
from seer_ray.config import SweepConfig
from seer_ray.jobs import race, sweep
from seer_ray.jobs.estimate import estimate
from seer_ray.jobs.live import NullReporter, SweepLive, SweepSummary
from seer_ray.points import expand
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder
from seer_ray.tracking import catch_up


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with fake_engine.local_ray():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "qwen3")


@pytest.fixture
def base(tmp_path: Path, model: Path) -> SweepConfig:
    """Three problems, two samples each, 20 tokens; rounds of one problem; no points yet."""
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"id": id, "question": f"{id}?", "answer": "4"}) for id in "abc"))
    config = SweepConfig(name="sw", samples=2)
    config.model.name, config.task.data, config.task.name = str(model), str(data), "letters"
    config.sampling.max_new_tokens, config.engine.block_size = 20, 16
    config.cluster.workers, config.cluster.num_cpus, config.cluster.report_interval = 1, 1, 0.05
    config.results.folder, config.results.progress_interval = str(tmp_path / "runs"), 0.0
    config.results.part_interval = 0.0
    config.tracking.enabled = config.results.report = False
    config.sweep.round = 1
    return config


class Recorder(NullReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


class Stopper(Recorder):
    """Presses Ctrl-C when so many rows of all points are done."""

    def __init__(self, done: int) -> None:
        super().__init__()
        self.done = done

    def update(self, live: SweepLive) -> None:
        if live.done >= self.done and live.phase == "decoding":
            self.done = 10**9
            os.kill(os.getpid(), signal.SIGINT)


def run(
    base: SweepConfig, *overrides: str, reporter: Recorder | None = None, build: Any = fake_engine.build_fake
) -> SweepSummary:
    return sweep.main(expand(overrides, base), reporter or Recorder(), build)


def folder(base: SweepConfig) -> SweepFolder:
    return SweepFolder.view(f"{base.results.folder}/{base.name}")


def rows(base: SweepConfig, slug: str) -> list[dict[str, Any]]:
    table = RunFolder.view(f"{base.results.folder}/{base.name}/points/{slug}").read()
    return sorted(table.to_pylist(), key=lambda row: (row["problem_id"], row["sample"]))


def states(base: SweepConfig) -> dict[str, str]:
    return {point["slug"]: point["state"] for point in folder(base).points}


def test_every_point_is_a_run_of_its_own_with_its_own_setting(base: SweepConfig) -> None:
    summary = run(base, "selector=quest,window", "selector.budget=32,64")
    names = ["dense", "quest-32", "quest-64", "window-32", "window-64"]
    assert states(base) == dict.fromkeys(names, "done")
    assert summary.failed == []
    for name in names:
        found = rows(base, name)
        assert [(row["problem_id"], row["sample"]) for row in found] == [
            (p, s) for p in "abc" for s in (0, 1)
        ]
        for row in found:
            assert row["token_ids"] == expected_tokens(make_request(row["problem_id"], row["sample"], 20))
            assert row["error"] is None
            wanted = "fake" if name == "dense" else f"fake-{name.replace('-', '')}"
            assert row["selector"] in (wanted, "fake-dense2048")
    for point in summary.points:
        metrics = point["metrics"]
        assert metrics["time/decoding_s"] > 0 and metrics["speed/tokens_per_s"] > 0
        assert (metrics["kv/attended"], metrics["kv/available"]) == (6 * 200, 6 * 400)
    codes = {point["slug"]: point["plan"] for point in folder(base).points}
    assert codes["quest-32"] == "2L:quest32b16" and codes["dense"] == "2L:dense"
    again = run(base, "selector=quest,window", "selector.budget=32,64", build=None)
    assert [point["metrics"] for point in again.points] == [point["metrics"] for point in summary.points]


def test_points_are_decoded_in_rounds(base: SweepConfig) -> None:
    base.engine.max_batch = 8
    with pytest.raises(Interrupted, match=r"interrupted with \d+ of 18 rows"):
        run(
            base, "selector=quest,window", "selector.budget=32", reporter=Stopper(8),
            build=fake_engine.build_slow,
        )  # fmt: skip
    done = [{row["problem_id"] for row in rows(base, name)} for name in ("dense", "quest-32", "window-32")]
    assert all("a" in problems for problems in done), done
    assert not any("c" in problems for problems in done), done
    before = {name: rows(base, name) for name in ("dense", "quest-32", "window-32")}
    run(base, "selector=quest,window", "selector.budget=32")
    for name, kept in before.items():
        now = rows(base, name)
        assert len(now) == 6 and all(row in now for row in kept)


def test_a_point_that_no_worker_can_have_fails_alone(base: SweepConfig) -> None:
    recorder = Recorder()
    summary = run(base, "selector=seer,quest", "selector.budget=32", reporter=recorder)
    assert states(base) == {"dense": "done", "seer-32": "failed", "quest-32": "done"}
    assert summary.failed == ["seer-32"]
    assert any(note == "seer-32 failed: model.gates: none given" for note in recorder.notes)
    status = RunFolder.view(f"{base.results.folder}/sw/points/seer-32").read_json("status.json")
    assert (status["state"], status["error"]) == ("failed", "model.gates: none given")


def test_points_that_read_the_same_blocks_are_one(base: SweepConfig) -> None:
    recorder = Recorder()
    run(base, "selector=quest", "selector.budget=64,70", reporter=recorder)
    assert states(base) == {"dense": "done", "quest-64": "done"}
    assert "quest-70 reads the same blocks as quest-64: one point" in recorder.notes


def test_a_sweep_grows(base: SweepConfig) -> None:
    run(base, "selector=quest,window", "selector.budget=32")
    kept = rows(base, "quest-32")
    run(base, "selector=quest", "selector.budget=64,96")
    assert set(states(base)) == {"dense", "quest-32", "window-32", "quest-64", "quest-96"}
    assert rows(base, "quest-32") == kept
    assert set(states(base).values()) == {"done"}


def test_the_config_of_the_folder_is_the_sweep(base: SweepConfig) -> None:
    config = expand(["selector=quest,window", "selector.budget=32"], base)
    assert expand([], config) == config
    sweep.main(config, Recorder(), fake_engine.build_fake)
    assert folder(base).config_yaml == to_yaml(config)


def test_racing_stops_what_is_surely_worse(base: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody grades the fake chains; here racing is told that the window's are worse than dense."""
    asked: list[tuple[set[str], float]] = []

    def decide(outcomes: Any, settings: Any) -> Any:
        asked.append((set(outcomes), settings.alpha))
        return {
            name: Decision(
                Verdict.WORSE if "window" in name else Verdict.KEEP, "far below dense", 1, 0.001, 1.0
            )
            for name in outcomes
        }

    monkeypatch.setattr(race, "decide", decide)
    base.task.grader = "none"
    recorder = Recorder()
    summary = run(
        base,
        "selector=quest,window",
        "selector.budget=32",
        "sweep.racing.enabled=true",
        reporter=recorder,
        build=fake_engine.build_slow,
    )
    assert states(base) == {"dense": "done", "quest-32": "done", "window-32": "stopped early"}
    assert len(rows(base, "window-32")) < 6 == len(rows(base, "quest-32"))
    assert any(note == "window-32 is sampled no more: far below dense" for note in recorder.notes)
    assert summary.saved is not None and summary.saved.startswith("racing stopped 1 points early and saved")
    assert asked[-1] == ({"quest-32", "window-32"}, 0.05)
    before = rows(base, "window-32")
    run(base, "selector=quest,window", "selector.budget=32", "sweep.racing.enabled=true")
    assert rows(base, "window-32") == before and states(base)["window-32"] == "stopped early"
    run(base, "selector=quest,window", "selector.budget=32")
    assert len(rows(base, "window-32")) == 6 and states(base)["window-32"] == "done"


def test_mlflow_gets_nested_runs_also_when_it_was_away(base: SweepConfig, tmp_path: Path) -> None:
    place = tmp_path / "away"
    place.write_text("no folder, so no database can be opened in it")
    base.tracking.enabled, base.tracking.uri = True, f"sqlite:///{place}/mlflow.db"
    base.tracking.interval = 0.1
    overrides = ("selector=quest", "selector.budget=32,64")
    assert run(base, *overrides).failed == []
    place.unlink()
    place.mkdir()
    run(base, *overrides, build=None)
    points = [RunFolder.view(f"{folder(base).uri}/points/{slug}") for slug in states(base)]
    assert [catch_up(place, timeout=60) for place in (folder(base), *points)] == [0, 0, 0, 0]
    client = MlflowClient(str(base.tracking.uri))
    experiment = client.get_experiment_by_name("seer-ray")
    assert experiment is not None
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"sw", "dense", "quest-32", "quest-64"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    parent = found.pop("sw")
    assert parent.data.metrics["sweep/points_done"] == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    for slug, child in found.items():
        assert child.data.metrics["rows/total"] == 6 and child.data.params["selector.name"] in slug
        assert child.data.metrics["speed/tokens_per_s"] > 0


def test_an_estimate_says_what_it_rests_on(base: SweepConfig) -> None:
    overrides = ["selector=quest,window", "selector.budget=32"]
    before = estimate(expand(overrides, base))
    assert [(point.name, point.requests, point.tokens) for point in before.points] == [
        ("dense", 6, None), ("quest-32", 6, None), ("window-32", 6, None),
    ]  # fmt: skip
    assert (before.requests, before.tokens, before.seconds) == (18, None, None)
    assert not Path(before.folder).exists()
    run(base, *overrides)
    more = estimate(expand([*overrides[:1], "selector.budget=32,64"], base))
    by_name = {point.name: point for point in more.points}
    assert (by_name["quest-32"].requests, by_name["quest-32"].done, by_name["quest-32"].tokens) == (0, 6, 0)
    assert (by_name["quest-64"].requests, by_name["quest-64"].tokens) == (6, 6 * 20)
    assert by_name["quest-64"].basis == "3 other points of this sweep"
    assert by_name["quest-64"].seconds is not None and by_name["quest-64"].seconds > 0
    base.name, base.seed = "other", 1
    beside = {point.name: point for point in estimate(expand(overrides, base)).points}
    assert beside["quest-32"].tokens == 6 * 20
    assert beside["quest-32"].basis == "1 earlier runs of quest with this model, task and sampling"
