"""``seer-ray list``: the jobs of a folder, and what is done before one begins."""

from __future__ import annotations

import json
import time

import pytest

import seer_ray
from seer_ray.config.errors import JobError

from .conftest import make_run


def test_jobs_in_a_folder(invoke):
    assert invoke("list").stdout.strip() == "no jobs in runs"
    status = {"state": "done", "done": 4, "total": 4, "accuracy": 0.75, "heartbeat": time.time() - 75}
    make_run("name=old", status=status)
    make_run("name=new", "selector=dense", status=status | {"heartbeat": time.time(), "state": "failed"})
    *_, old, new = [line.split() for line in invoke("list").stdout.splitlines()]
    assert old[:-1] == ["old", "run", "done", "4/4", "75.0", "%"] and old[-1].startswith("1:")
    assert new[:-1] == ["new", "run", "failed", "4/4", "75.0", "%"]
    jobs = json.loads(invoke("list", "--json").stdout)["jobs"]
    assert [job["name"] for job in jobs] == ["old", "new"]


def test_whole_runs_from_python(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = seer_ray.run("selector=dense", {"task.limit": 3, "sampling.stop": ["a, b"], "name": "mine"})
    assert (summary.name, summary.rows) == ("mine", 4)
    assert job.config.selector.name == "dense" and job.config.task.limit == 3
    assert job.config.sampling.stop == ["a, b"]
    job.failure = "all rows are errors"
    with pytest.raises(JobError, match=r"^all rows are errors$"):
        seer_ray.run()


def test_the_version_is_said(invoke):
    assert invoke("--version").stdout == f"seer-ray {seer_ray.__version__}\n"
