"""``seer-ray sweep``, and the other commands on a sweep's folder, with a stand-in for the job."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import types

import pytest
from rich.console import Console

from seer_ray.cli.display.sweep import print_grid, print_sweep_summary
from seer_ray.config.compose import to_yaml
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import SweepConfig, TrackingConfig
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder, point_uri
from seer_ray.status.live import LiveStats, PointLive, Reporter, SweepLive, SweepSummary
from seer_ray.sweeps.points import expand, points_of
from seer_ray.tracking.mlflow_tracker import open_tracker

from .conftest import one_error

METRICS = {
    "accuracy/avg": 0.5,
    "accuracy/low": 0.25,
    "accuracy/high": 0.75,
    "kv/sparsity": 0.75,
    "kv/read_rate": 0.25,
    "speed/tokens_per_s": 100.0,
}


class Job:
    """Stands for ``seer_ray.jobs.sweep``."""

    def __init__(self) -> None:
        self.config: SweepConfig | None = None
        self.state = "done"
        self.raises: BaseException | None = None

    def main(self, config: SweepConfig, reporter: Reporter[SweepLive, SweepSummary]) -> SweepSummary:
        self.config = config
        live = LiveStats(total=4, done=2, accuracy=0.5, accuracy_low=0.25, accuracy_high=0.75, sparsity=0.75)
        reporter.start(SweepLive([PointLive("quest-256", "running", live, 42.0)], "decoding"))
        reporter.note("a note")
        if self.raises:
            raise self.raises
        entries = [
            {"slug": "dense", "state": "done", "baseline": "dense", "error": None, "metrics": METRICS},
            {
                "slug": "quest-256",
                "state": self.state,
                "baseline": "dense",
                "error": "no gates" if self.state == "failed" else None,
                "metrics": {**METRICS, "speed/tokens_per_s": 150.0},
            },
        ]
        summary = SweepSummary(
            str(config.name),
            "runs/x",
            points=entries,
            failed=["quest-256"] if self.state == "failed" else [],
            recommendation="Take quest-256.",
        )
        reporter.finish(summary)
        return summary


@pytest.fixture
def job(monkeypatch) -> Job:
    stand_in = Job()
    module = types.ModuleType("seer_ray.jobs.sweep")
    module.main = stand_in.main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return stand_in


ARGS = ("sweep", "name=x", "selector=quest", "selector.budget=256,512")


def test_done(invoke, job):
    result = invoke(*ARGS)
    assert result.exit_code == 0
    assert [point.slug for point in points_of(job.config)] == ["dense", "quest-256", "quest-512"]
    text = " ".join(result.stdout.split())
    assert "quest-256 50.0 (25–75) 25.0 %" in text and "Take quest-256." in text
    assert "runs/x/points/*/completions/*.parquet" in text
    assert "a note" in result.stderr
    assert (
        "quest-256 · 2/4 rows · 50.0 (25–75) % right · 25.0 % of KV read · 42 tokens/s · running"
        in result.stderr
    )


def test_two_budgets_are_a_grid() -> None:
    """In 80 columns; nothing of the kind where there is one thinking budget."""

    def point(slug: str, thinking: int | None, accuracy: float, tokens: float) -> dict:
        ends = {"accuracy/low": accuracy - 0.025, "accuracy/high": accuracy + 0.025}
        metrics = {"accuracy/avg": accuracy, **ends, "thinking/mean_tokens": tokens}
        forced = {} if thinking is None else {"thinking/forced_rate": 0.5}
        overrides = {"sampling.thinking_budget": thinking}
        return {"slug": slug, "overrides": overrides, "metrics": metrics | forced, "baseline": ""}

    points = [
        point(f"{name}-think={'null' if thinking is None else thinking}", thinking, accuracy, tokens)
        for name, loss in (("dense", 0), ("seer-208", 0.1))
        for thinking, accuracy, tokens in ((None, 0.9, 1500.0), (256, 0.5, 250.5), (1024, 0.75, 800.0))
        for accuracy in [accuracy - loss]
    ]
    out = io.StringIO()
    print_grid(Console(width=80, file=out), SweepSummary("x", "runs/x", points=points))
    lines = [line.split("  ") for line in out.getvalue().splitlines() if line.strip()]
    words = [[word.strip() for word in line if word.strip()] for line in lines]
    assert ["thinking budget", "256", "1,024", "no limit"] in words
    assert ["seer-208", "40.0 (37–43)", "65.0 (62–68)", "80.0 (77–83)"] in words
    assert words.count(["250, 50 %", "800, 50 %", "1,500"]) == 2
    print_grid(Console(width=80, file=(alone := io.StringIO())), SweepSummary("x", "y", points=points[:1]))
    assert alone.getvalue() == ""


@pytest.mark.parametrize(("width", "whole"), [(80, False), (120, True)])
def test_a_table_leaves_out_what_has_no_room(width: int, whole: bool) -> None:
    metrics = {"accuracy/avg": 0.938, "accuracy/low": 0.78, "accuracy/high": 0.99, "kv/read_rate": 0.678}
    metrics |= {"kv/nominal_read_rate": 0.688, "speed/tokens_per_s": 12626.0, "length/mean_tokens": 31269.0}
    names = ("quest-2048-nosink-think=4096", "quest-2048-nosink-think=16384")
    point = {"state": "done", "overrides": {}, "metrics": metrics, "baseline": ""}
    points = [{"slug": name, **point} for name in names]
    summary = SweepSummary("x", "runs/x", points=points)
    print_sweep_summary(Console(width=width, file=(out := io.StringIO())), summary)
    (head,) = (line for line in out.getvalue().splitlines() if line.startswith("point "))
    assert ("nominal" in head, "tokens/s" in head) == (whole, True)
    for name in names:
        (row,) = (line for line in out.getvalue().splitlines() if line.startswith(f"{name} "))
        assert "93.8 (78–99)" in row and "67.8 %" in row and "12,626" in row


def test_a_failed_point_is_exit_code_1(invoke, job):
    job.state = "failed"
    result = invoke(*ARGS)
    assert result.exit_code == 1
    assert "quest-256 failed: no gates" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "error: quest-256 failed; the other points are done, try again with: seer-ray resume x"
    )
    said = invoke(*ARGS, "--json")
    assert said.exit_code == 1 and json.loads(said.stdout)["failed"] == ["quest-256"]


def test_interrupted(invoke, job):
    job.raises = Interrupted("stopped")
    result = invoke(*ARGS)
    assert result.exit_code == 130 and result.stderr.endswith("go on with: seer-ray resume x\n")


def test_points_by_name_and_from_a_file(invoke, job, tmp_path):
    quest = "selector=quest selector.budget=256"
    assert invoke("sweep", "--point", quest, "--point", "selector=window").exit_code == 0
    assert [point.slug for point in points_of(job.config)] == ["dense", "quest-256", "window-208"]
    (tmp_path / "mine.yaml").write_text(to_yaml(job.config))
    wanted = points_of(job.config)
    assert invoke("sweep", "--config", "mine.yaml").exit_code == 0
    assert points_of(job.config) == wanted
    oracle = "selector=oracle selector.budget=256"
    assert invoke("sweep", "--config", "mine.yaml", "--point", oracle).exit_code == 0
    assert [point.slug for point in points_of(job.config)][3:] == ["oracle-256"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["selector=quest"], "nothing to sweep: give an option several values"),
        (["selector=qest,dense"], "selector=qest: no such choice"),
        (["selector.budget=12,512"], "selector.budget=12: must be at least two blocks"),
        (["sweep.rounds=3"], "sweep.rounds=3: no such option; did you mean sweep.round?"),
        (["--config", "no.yaml"], "--config no.yaml: cannot be read"),
    ],
)
def test_mistakes(invoke, job, args, message):
    assert one_error(invoke("sweep", *args)).startswith(message)
    assert job.config is None


def test_a_mistake_is_told_before_anything_heavy_is_imported():
    script = """
import sys
from seer_ray.cli.app import main
try:
    main()
finally:
    heavy = {"torch", "ray", "mlflow", "transformers", "pyarrow", "datasets"} & set(sys.modules)
    assert not heavy, heavy
"""
    command = [sys.executable, "-c", script, "sweep", "selector=quest", "selector.budget=12,512"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr


def make_folder(state: str) -> SweepConfig:
    """A sweep of which one point was decoded half and one has failed."""
    config = expand(["name=x", "selector=quest,window"])
    with SweepFolder.open("runs/x", config) as folder:
        folder.write_config(config)
        states = {"dense": "running", "quest-208": "failed", "window-208": "waiting"}
        folder.write_points(
            [
                {
                    "slug": point.slug,
                    "state": states[point.slug],
                    "error": "no gates" if point.slug.startswith("quest") else None,
                    "baseline": "dense",
                    "rows": 0,
                    "total": 8,
                }
                for point in points_of(config)
            ]
        )
        beat = {"state": state, "pid": os.getpid(), "host": socket.gethostname(), "heartbeat": time.time()}
        folder.write_json("status.json", {**beat, "phase": "decoding", "elapsed_s": 3.0})
    point = points_of(config)[0]
    with RunFolder.open(point_uri("runs/x", "dense"), point.config) as run:
        live = {"total": 8, "done": 4, "accuracy": 0.25, "all_decoding_s": 2.0, "all_new_tokens": 80}
        run.write_json("status.json", {**beat, **live})
    return config


def test_status_has_a_line_for_each_point(invoke):
    make_folder("running")
    result = invoke("status", "x")
    text = " ".join(result.stdout.split())
    assert result.exit_code == 0, result.output
    assert "dense 4/8 25.0 40 running" in text and "window-208 0/8 waiting" in text
    assert "quest-208: no gates" in text and "4 of 24 rows" in text
    assert f"x: running (process {os.getpid()} on" in text
    said = json.loads(invoke("status", "x", "--json").stdout)
    assert said["state"] == "running"
    assert [point["name"] for point in said["live"]["points"]] == ["dense", "quest-208", "window-208"]


def test_status_says_how_to_go_on(invoke):
    for state, message in (
        ("interrupted", "x: interrupted; continue with: seer-ray resume runs/x"),
        ("failed", "x: done, but for quest-208; try again with: seer-ray resume runs/x"),
    ):
        make_folder(state)
        assert message in " ".join(invoke("status", "x").stdout.split())


def test_status_says_what_mlflow_was_not_told(invoke):
    config = make_folder("interrupted")
    nobody = TrackingConfig(uri="http://127.0.0.1:9")
    dense = points_of(config)[0].config
    with (
        SweepFolder.open("runs/x", config) as folder,
        RunFolder.open(point_uri("runs/x", "dense"), dense) as run,
    ):
        around = open_tracker(folder, nobody)
        around.start("x", {})
        nested = open_tracker(run, nobody, around)
        nested.start("dense", {})
        nested.finish()
        around.finish()
    behind = "4 updates are not in MLflow yet; to send: seer-ray resume runs/x"
    assert behind in invoke("status", "x").stdout
    assert json.loads(invoke("status", "x", "--json").stdout)["unsent"] == 4
    assert "2 updates are not in MLflow yet" in invoke("status", "x/points/dense").stdout


def test_resume_goes_on_with_all_points(invoke, job):
    config = make_folder("interrupted")
    assert invoke("resume", "x", "engine.max_batch=3").exit_code == 0
    assert [point.slug for point in points_of(job.config)] == [point.slug for point in points_of(config)]
    assert job.config.engine.max_batch == 3 and job.config.name == "x"
    assert "leave this out" in one_error(invoke("resume", "x", "name=y"))


def test_a_run_and_a_sweep_keep_out_of_each_others_folders(invoke):
    make_folder("done")
    assert "the folder of a sweep, not of a run; give the run another name" in one_error(
        invoke("run", "name=x")
    )
