"""``seer-ray status``: every state that a run folder can be in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict

from seer_ray.cli import watch
from seer_ray.config.compose import compose
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats
from seer_ray.status.pulse import STALE
from seer_ray.status.read import read_status

from .conftest import make_run, one_error

LIVE = LiveStats(
    total=10, done=4, errors=1, tokens_per_s=123.0, new_tokens=456, phase="decoding", accuracy=0.25
)


def status(state: str, **changes: object) -> dict[str, object]:
    return {
        **asdict(LIVE),
        "state": state,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "heartbeat": time.time(),
        **changes,
    }


def test_running(invoke):
    name = make_run(status=status("running"))
    result = invoke("status", name)
    assert result.exit_code == 0
    assert "4 of 10 rows" in result.stdout and "123 tokens/s" in result.stdout and "25.0 %" in result.stdout
    assert f"running (process {os.getpid()} on" in result.stdout
    assert invoke("status", f"runs/{name}").stdout == result.stdout


def test_done_shows_the_final_metrics(invoke):
    name = make_run(status=status("done", done=10), metrics={"accuracy/avg": 0.75})
    result = invoke("status", name)
    assert "75.0 %" in result.stdout and "10, in 0:00" in result.stdout
    assert f"runs/{name}/completions/*.parquet" in result.stdout


def test_interrupted_and_failed_say_how_to_go_on(invoke):
    name = make_run(status=status("interrupted"))
    assert f"interrupted; continue with: seer-ray resume runs/{name}" in " ".join(
        invoke("status", name).stdout.split()
    )
    other = make_run("seed=1", status=status("failed", error="no worker starts"))
    shown = invoke("status", other).stdout
    assert f"failed: no worker starts; continue with: seer-ray resume runs/{other}" in shown


def test_old_heartbeat_means_stopped(invoke):
    name = make_run(status=status("running", host="elsewhere", heartbeat=1000.0))
    assert read_status(f"runs/{name}", now=1000.0 + STALE - 1).state == "running"
    late = read_status(f"runs/{name}", now=1000.0 + STALE + 1)
    assert late.state == "stopped"
    assert late.message == (
        f"stopped without finishing, last heard of 31 s ago; continue with: seer-ray resume runs/{name}"
    )
    assert "stopped without finishing" in invoke("status", name).stdout


def test_dead_process_on_this_machine_means_stopped_at_once(invoke):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    name = make_run(status=status("running", pid=int(gone.stdout)))
    assert read_status(f"runs/{name}").state == "stopped"


def test_new(invoke):
    name = make_run()
    assert "not begun yet" in invoke("status", name).stdout


def test_json(invoke):
    name = make_run(status=status("done"), metrics={"accuracy/avg": float("nan")})
    said = json.loads(invoke("status", name, "--json").stdout)
    assert (said["name"], said["state"], said["live"]["done"]) == (name, "done", 4)
    assert said["metrics"] == {"accuracy/avg": None}


def test_fields_of_other_versions_are_passed_by(invoke):
    name = make_run(status={**status("running"), "mood": "good"})
    assert invoke("status", name).exit_code == 0


def test_torn_file(invoke, tmp_path):
    name = make_run(status=status("done"))
    (tmp_path / "runs" / name / "status.json").write_text('{"state": ')
    assert "status.json" in one_error(invoke("status", name))


def test_watch_follows_to_the_end(invoke, monkeypatch):
    name = make_run(status=status("running"))
    folder = RunFolder.open(f"runs/{name}", compose([]))
    steps = [status("running", done=7, phase="almost"), status("done", done=10)]
    monkeypatch.setattr(watch.time, "sleep", lambda _: folder.write_json("status.json", steps.pop(0)))
    result = invoke("status", name, "--watch")
    assert result.exit_code == 0 and not steps
    assert "4/10 rows" in result.stderr and "7/10 rows" in result.stderr
    assert "10, in 0:00" in result.stdout
