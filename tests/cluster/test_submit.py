from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus
from tiny import save_tiny

from seer_ray.cluster import submit
from seer_ray.cluster.connect import STAY_HERE
from seer_ray.cluster.submit import _find, follow_job, made_absolute, stage_modules, stage_package
from seer_ray.config.errors import ConfigError
from seer_ray.config.measuring import GatesEvalConfig
from seer_ray.config.options import RunConfig
from seer_ray.config.training import DistillConfig, PretrainConfig
from seer_ray.results.folder import RunFolder
from seer_ray.sweeps.points import expand, points_of

PATIENCE = 180.0
LOOPBACK = {STAY_HERE: "0"}
"""For the cluster and for those that look for it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}/api/version", timeout=5)
    except urllib.error.HTTPError:
        return True  # it asks for a token
    except OSError:
        return False
    return True


@pytest.fixture
def cluster() -> Iterator[tuple[str, str]]:
    """A Ray cluster of this machine alone, with a dashboard: the addresses of the two."""
    folder = tempfile.mkdtemp(prefix="ray")  # Ray's sockets lie in it, and their paths must be short
    address, dashboard = (f"127.0.0.1:{free_port()}" for _ in range(2))
    options = {
        "port": address.rpartition(":")[2],
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard.rpartition(":")[2],
        "dashboard-agent-listen-port": free_port(),  # its default may be taken by another Ray here
        "num-cpus": 2,
        "object-store-memory": 100_000_000,
        "temp-dir": folder,
    }
    # The job must find the cluster's Python where PATH leads to another.
    mine = str(Path(sys.executable).parent)
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != mine)
    log = Path(folder, "log")
    with log.open("wb") as output:
        head = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--head",
                "--block",
                "--disable-usage-stats",
            ]
            + [f"--{name}={value}" for name, value in options.items()],
            env=os.environ | LOOPBACK | {"PATH": path},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(dashboard):
            assert head.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address, dashboard
    finally:
        head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_job_on_a_cluster(cluster: tuple[str, str], tmp_path: Path) -> None:
    """Sent to the cluster, then again from here: the package travels, paths are found again, the log comes
    back, and the rows are there; a driver outside finds the cluster and goes on with the same run.

    In processes of their own: Ray decides when it is imported whether it uses tokens.
    """
    address, dashboard = cluster
    save_tiny(tmp_path / "model", "llama", max_position_embeddings=4096)

    def seer_ray(command: str, name: str, point: str = "") -> str:
        options = f"model.name={tmp_path}/model name={name} task.limit=3 samples=1 sampling.max_new_tokens=10"
        more = "engine.kv_memory=8MiB tracking.enabled=false" + ("" if point else " selector=dense")
        done = subprocess.run(
            f"{sys.executable} -m seer_ray.cli.app {command} {options} {more}".split(),
            cwd=tmp_path,
            env=os.environ | LOOPBACK,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert RunFolder.view(f"{tmp_path}/runs/{name}/{point}").read().num_rows == 3
        return done.stdout + done.stderr

    log = seer_ray(f"submit --address {dashboard}", "far+away")
    assert log.startswith("submitted seer-ray-far-away-")
    assert f"{tmp_path}/runs/far+away/completions" in log, "the job's own summary"
    assert "WebSocket" not in log and "Uploading" not in log, "what Ray says of its own work"
    assert "starting Ray" in seer_ray(f"run cluster.address={address}", "near")
    log = seer_ray(f"submit sweep --address {dashboard} selector.name=dense,window", "sweep", "points/dense")
    assert "right %" in log and f"seer-ray compare {tmp_path}/runs/sweep" in log


class FakeClient:
    """A job server that cuts the connection in the middle of a log."""

    def __init__(self, **jobs: JobStatus) -> None:
        self.jobs = {f"job{id.removeprefix('job').replace('_', '-')}": status for id, status in jobs.items()}
        self.log = "one\ntwo\nthree\n"
        self.tails: list[list[Any]] = [["one\n", "tw", ConnectionError()], ["one\n", "two\n"]]
        self.statuses = [JobStatus.RUNNING]

    def list_jobs(self) -> list[Any]:
        return [Job(id, status) for id, status in self.jobs.items()]

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        for part in self.tails.pop(0):
            if isinstance(part, Exception):
                raise part
            yield part

    def get_job_status(self, _: str) -> JobStatus:
        return self.statuses.pop(0)

    def get_job_logs(self, _: str) -> str:
        return self.log

    def get_job_info(self, id: str) -> Any:
        return Job(id, JobStatus.FAILED)


class Job:
    message = "Job entrypoint command failed with exit code 2, last available logs: pages"
    driver_exit_code = 2

    def __init__(self, id: str, status: JobStatus) -> None:
        self.submission_id, self.status = id, status


@pytest.mark.parametrize(
    ("jobs", "found"),
    [
        ({}, ("job", False)),
        ({"job": JobStatus.RUNNING}, ("job", True)),
        ({"job": JobStatus.FAILED}, ("job-2", False)),
        ({"job": JobStatus.STOPPED, "job_2": JobStatus.PENDING}, ("job-2", True)),
        ({"job": JobStatus.SUCCEEDED, "job_2": JobStatus.FAILED}, ("job-3", False)),
    ],
)
def test_a_run_has_one_job_at_a_time(jobs: dict[str, JobStatus], found: tuple[str, bool]) -> None:
    assert _find(FakeClient(**jobs), "job") == found  # type: ignore[arg-type]


@pytest.mark.parametrize(("end", "code"), [(JobStatus.SUCCEEDED, 0), (JobStatus.FAILED, 2)])
def test_a_log_is_followed_across_a_broken_connection(
    end: JobStatus, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "RECONNECT", 0.0)
    client = FakeClient()
    client.statuses.append(end)
    lines: list[str] = []
    assert follow_job(client, "job", lines.append) == code  # type: ignore[arg-type]
    failure = "job failed: Job entrypoint command failed with exit code 2\n" if code else ""
    assert "".join(lines) == client.log + failure


def test_an_address_where_nobody_is() -> None:
    with pytest.raises(ConfigError, match=r"^address=http://127.0.0.1:1: no Ray cluster answers there"):
        submit.connect("http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"^address=ray://host:10001: jobs go to the dashboard"):
        submit.connect("ray://host:10001")


def test_an_address_where_somebody_else_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"^address=http://{address}: no Ray cluster answers there"):
            submit.connect(address)


def test_relative_paths_become_absolute_and_other_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("data.jsonl").touch()
    Path("model").mkdir()
    here = RunConfig()
    here.model.name, here.task.data, here.model.gates = "model", "data.jsonl", "owner/gates"
    here.cluster.address = "localhost:6379"
    there = made_absolute(here)
    assert there.model.name == f"{tmp_path}/model"
    assert there.task.data == f"{tmp_path}/data.jsonl"
    assert there.model.gates == "owner/gates"
    assert there.results.folder == f"{tmp_path}/runs"
    assert there.tracking.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert there.cluster.address is None
    assert here.model.name == "model", "the options that were given are left alone"
    here.results.folder, here.model.name, here.task.data = "s3://bucket/runs", "Qwen/Qwen3-8B", "data*.jsonl"
    there = made_absolute(here)
    assert (there.results.folder, there.model.name) == ("s3://bucket/runs", "Qwen/Qwen3-8B")
    assert there.task.data == f"{tmp_path}/data*.jsonl"


def test_paths_in_the_options_of_other_jobs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("texts.jsonl", "more.jsonl"):
        Path(name).touch()
    Path("gates").mkdir()
    sweep = expand(["selector=seer", "model.name=m", "model.gates=gates,owner/other"])
    points = {point.slug: point.config.model.gates for point in points_of(made_absolute(sweep))}
    assert set(points.values()) - {None} == {f"{tmp_path}/gates", "owner/other"}
    distill = DistillConfig(data=["texts.jsonl", {"path": "more.jsonl", "weight": 2.0}, "owner/dataset"])
    there = made_absolute(distill)
    assert there.data == [
        f"{tmp_path}/texts.jsonl",
        {"path": f"{tmp_path}/more.jsonl", "weight": 2.0},
        "owner/dataset",
    ]
    assert there.results.folder == f"{tmp_path}/runs"
    pretrain = PretrainConfig()
    assert made_absolute(pretrain).data == pretrain.data
    pretrain.data.text = "texts.jsonl"
    assert made_absolute(pretrain).data.text == f"{tmp_path}/texts.jsonl"


def test_the_command_that_runs_there_is_that_of_the_job() -> None:
    seen: list[str] = []

    class Client:
        def submit_job(self, entrypoint: str, **_: Any) -> None:
            seen.append(entrypoint)

    submit._send(Client(), "id", DistillConfig(name="x"))  # type: ignore[arg-type]
    assert seen == ["sh start.sh $PPID distill --config job.yaml"]


def test_a_password_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host")
    assert made_absolute(RunConfig()).tracking.uri is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    assert made_absolute(RunConfig()).tracking.uri == "https://host"


def test_the_staged_package_is_whole(tmp_path: Path) -> None:
    stage_package(tmp_path)
    code = (
        "import seer_ray.cli.app, seer_ray.config.compose, seer_ray.status.live, seer_ray.kernels;"
        "print(seer_ray.cli.app.__file__, seer_ray.status.live.__file__);"
        "print(seer_ray.config.compose.choices('task'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(str(tmp_path / "seer_ray")) == 2
    assert "registers" in done.stdout


def test_modules_of_one_s_own_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "mine").mkdir(parents=True)
    there.mkdir()
    (here / "mine" / "ranking.py").write_text("class Top: ...")
    (here / "my_grader.py").write_text("def same(text, answer): ...")
    monkeypatch.chdir(here)
    config = RunConfig()
    config.task.grader, config.plan.cheap = "my_grader:same", "mine.ranking:Top:512"
    config.selector.layers = {"0": "json:JSONDecoder"}
    assert stage_modules(config, there) == ["mine", "my_grader"], "what is installed is there as well"
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*.py")) == [
        "mine/ranking.py",
        "my_grader.py",
    ]
    sweep = expand(["task.grader=none,my_grader:same", "selector=quest"])
    assert stage_modules(sweep, there) == ["my_grader"]


def test_a_job_that_measures_is_sent_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gates").mkdir()
    sent = made_absolute(GatesEvalConfig(sets=["gates"], data="org/texts"))
    assert sent.sets == [str(tmp_path / "gates")] and sent.data == "org/texts"
