"""A part of Ray that dies alone: the job ends by itself, in words of its own, and goes on when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jobs.conftest import MakeConfig

from seer_ray.config.compose import to_yaml
from seer_ray.results.folder import RunFolder

SCRIPT = """
import os, sys, types
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # before ray is imported
import fake_engine
from ray import cloudpickle
from seer_ray.jobs import run
cloudpickle.register_pickle_by_value(fake_engine)
job = run.main
run.main = lambda config, reporter: job(config, reporter, fake_engine.{build})
from seer_ray.cli.app import main
main()
"""
PATIENCE = 180.0


class Job:
    """A command in a process of its own, in a folder of its own."""

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder = folder
        self.log = folder / "log"
        (folder / "job.yaml").write_text(to_yaml(config))
        self.run = Path(config.results.folder, config.name)

    def start(self, build: str) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", SCRIPT.format(build=build), "run", "--config", "job.yaml"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = RunFolder.view(str(self.run)).read().to_pylist()
        return rows

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "status.json").read_text())
        return found


def part_of(driver: int, name: str) -> int:
    """The process of this name that a driver has started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == driver and os.readlink(entry / "exe").endswith(f"/{name}"):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError(f"no {name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "said"),
    [("gcs_server", "the head of the Ray cluster"), ("raylet", "Ray's raylet on this machine")],
)
def test_a_part_of_ray_that_dies_alone(tmp_path: Path, letters: MakeConfig, part: str, said: str) -> None:
    config = letters(ids="abcdefghij", tokens=500)  # for longer than it takes to notice
    config.cluster.address, config.engine.max_batch, config.results.part_interval = "local", 2, 0.0
    job = Job(tmp_path, config)
    process, deadline = job.start("build_slow"), time.monotonic() + PATIENCE
    while not (job.run / "ledger").exists() or not list((job.run / "ledger").iterdir()):
        assert process.poll() is None and time.monotonic() < deadline, job.log.read_text()
        time.sleep(0.1)
    os.kill(part_of(process.pid, part), signal.SIGKILL)
    assert process.wait(PATIENCE) == 1
    last = job.log.read_text().splitlines()[-1]
    assert last.startswith(f"error: {said}") and "what is finished is kept, go on with: seer-ray " in last
    assert "Traceback" not in job.log.read_text()
    status = job.status()
    assert status["state"] == "failed" and said in status["error"]
    done = len(job.rows())
    assert 0 < done < 20
    assert job.start("build_fake").wait(PATIENCE) == 0, job.log.read_text()
    assert len(job.rows()) == 20 and not any(row["error"] for row in job.rows())


@pytest.mark.slow
def test_workers_that_always_die_end_the_run(tmp_path: Path, letters: MakeConfig) -> None:
    config = letters(ids=["killa", "killb", "killc", "killd"])
    config.cluster.address = "local"
    job = Job(tmp_path, config)
    assert job.start("build_fake").wait(PATIENCE) == 1
    last = job.log.read_text().splitlines()[-1]
    assert "3 workers in a row died with requests before another token came (cluster.max_deaths=3): " in last
    assert last.endswith(f"go on with: seer-ray resume {job.run}")
    assert job.rows() == [] and job.status()["state"] == "failed"
