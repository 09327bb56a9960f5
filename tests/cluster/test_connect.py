from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seer_ray.cluster import connect
from seer_ray.cluster.connect import STAY_HERE, connected, require_reachable
from seer_ray.cluster.placement import Placement, place_workers
from seer_ray.config.errors import ConfigError, JobError
from seer_ray.config.options import ClusterConfig

BIG, SMALL, HEAD = {"CPU": 32.0, "GPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}


def cluster(**changes: object) -> ClusterConfig:
    return ClusterConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "config", "requests", "plan"),
    [
        ([{"CPU": 2.0}], cluster(), 10, Placement(1, 2, 0)),
        ([{"CPU": 2.0}], cluster(workers=2), 10, Placement(2, 1, 0)),
        ([{"CPU": 8.0}, {"CPU": 4.0}], cluster(), 10, Placement(3, 4, 0)),
        ([{"CPU": 8.0}, {"CPU": 8.0}], cluster(workers=4), 10, Placement(4, 4, 0)),
        ([BIG, SMALL, HEAD], cluster(), 100, Placement(10, 1, 1)),
        ([BIG, SMALL, HEAD], cluster(workers=3), 100, Placement(3, 1, 1)),
        ([BIG], cluster(num_gpus=0.5), 100, Placement(16, 1, 0.5)),
        ([BIG], cluster(num_gpus=2, num_cpus=16), 100, Placement(2, 16, 2)),
        ([BIG], cluster(num_gpus=0, num_cpus=8), 100, Placement(4, 8, 0)),
        ([BIG, {"memory": 1e9}], cluster(), 3, Placement(3, 1, 1)),
        ([{"CPU": 4.0}], cluster(num_cpus=0), 3, Placement(1, 0, 0)),
    ],
)
def test_plan(nodes: list[dict[str, float]], config: ClusterConfig, requests: int, plan: Placement) -> None:
    assert place_workers(nodes, config, requests) == plan


@pytest.mark.parametrize(
    ("nodes", "config", "plan"),
    [
        ([BIG, SMALL, HEAD], cluster(), Placement(2, 1, 1, 4)),  # no worker spans two nodes
        ([{"CPU": 8.0}, {"CPU": 8.0}], cluster(), Placement(2, 2, 0, 4)),
        ([{"CPU": 8.0}], cluster(workers=2), Placement(2, 1, 0, 4)),
    ],
)
def test_plan_of_workers_with_ranks(
    nodes: list[dict[str, float]], config: ClusterConfig, plan: Placement
) -> None:
    assert place_workers(nodes, config, 100, ranks=4) == plan


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (cluster(), "engine.tensor_parallel=4: 0 workers fit.*2 GPUs"),
        (cluster(num_gpus=0.5), "num_gpus=0.5, engine.tensor_parallel=4: every rank takes one GPU"),
        (cluster(num_gpus=4), "num_gpus=4, engine.tensor_parallel=4: every rank takes one GPU"),
        (cluster(num_gpus=0, num_cpus=0), "engine.tensor_parallel=4: every rank takes"),
    ],
)
def test_ranks_that_do_not_fit(config: ClusterConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place_workers([SMALL, SMALL], config, 100, ranks=4)


@pytest.mark.parametrize(
    ("nodes", "config", "message"),
    [
        ([{"CPU": 2.0}], cluster(workers=3), "cluster.workers=3: 2 workers fit.*2 CPUs and 0 GPUs"),
        ([{"CPU": 2.0}], cluster(num_gpus=1), "cluster.num_gpus=1: 0 workers fit"),
        ([BIG], cluster(num_cpus=64), "cluster.num_cpus=64.*0 workers fit.*32 CPUs and 8 GPUs"),
        ([], cluster(), "the nodes have nothing"),
    ],
)
def test_plans_that_do_not_fit(nodes: list[dict[str, float]], config: ClusterConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place_workers(nodes, config, 100)


def test_an_address_where_nobody_listens_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.delitem(sys.modules, "ray", raising=False)  # of this process, which may be connected
        refused = pytest.raises(ConfigError, match=rf"^cluster.address={address}: no Ray cluster answers.*$")
        with refused, connected(cluster(address=address)):
            pass
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
        with pytest.raises(ConfigError, match=r"^RAY_ADDRESS=ray://"), connected(cluster()):
            pass


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_of_somebody_else_is_refused_at_once(says: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for more than three minutes."""
    monkeypatch.setenv(STAY_HERE, "0")
    monkeypatch.setattr(connect, "REACH_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"no Ray cluster answers there \(somebody else listens"):
            require_reachable(address, "cluster.address")
        thread.join()


@pytest.mark.long
def test_ray_on_its_own_machine_only() -> None:
    """Ray listens on all interfaces unless told otherwise; a cluster's own address is found reachable."""
    code = (
        "from seer_ray.cluster.connect import connected, require_reachable\n"
        "from seer_ray.config.options import ClusterConfig\n"
        "with connected(ClusterConfig()):\n"
        "    import ray\n"
        "    print([node['NodeManagerAddress'] for node in ray.nodes()])\n"
        "    require_reachable(ray.get_runtime_context().gcs_address, 'here')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("['127.0.0.1']\n", "", 0)


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", ":6379", "http://host"])
def test_no_address_at_all(address: str) -> None:
    with pytest.raises(ConfigError, match="must be HOST:PORT"):
        require_reachable(address, "cluster.address")


@pytest.mark.parametrize(
    ("environment", "home", "made"),
    [
        ({}, "writable", False),
        ({}, "kept", False),
        ({}, "read-only", True),
        ({}, "missing in read-only", True),
        ({}, "a file", True),
        ({"RAY_AUTH_TOKEN": "mine"}, "read-only", False),
        ({"RAY_AUTH_TOKEN_PATH": "/dev/null/token"}, "writable", True),
    ],
)
def test_a_ray_of_our_own_needs_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], home: str, made: bool
) -> None:
    place = tmp_path / "home"
    if home == "a file":
        place.write_text("")
    elif home != "missing in read-only":
        place.mkdir()
    if home == "kept":
        (place / ".ray").mkdir()
        (place / ".ray" / "auth_token").write_text("0" * 64)
    writable, access = "read-only" not in home, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and (writable or mode == os.R_OK))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", connect.NICENESS):
        monkeypatch.setenv(name, "")  # so that it is as before, afterwards
        monkeypatch.delenv(name)
    for name, value in ({"HOME": str(place)} | environment).items():
        monkeypatch.setenv(name, value)
    connect._prepare(local=True)
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    assert (len(token) == 64) == made and (made or token == environment.get("RAY_AUTH_TOKEN", ""))
    assert os.environ[connect.NICENESS] == "0"
    monkeypatch.setenv(connect.NICENESS, "5")
    connect._prepare(local=True)
    assert os.environ[connect.NICENESS] == "5"


def test_what_is_slow_is_told_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "SLOW", 0.01)
    notes: list[str] = []
    with connect._told_if_slow("Ray is not up yet", notes.append):
        while len(notes) < 2:
            time.sleep(0.01)
    there = len(notes)
    assert notes[0].startswith("Ray is not up yet after 0 s; its logs are in ")
    time.sleep(0.05)
    assert len(notes) == there


@pytest.mark.parametrize("error", [OSError("AF_UNIX path length"), RuntimeError("no raylet"), SystemExit(1)])
def test_a_ray_that_does_not_start_is_no_bug(error: BaseException) -> None:
    class Ray:
        def init(self, *_: object, **__: object) -> None:
            raise error

    with pytest.raises(JobError, match=r"^Ray does not start on this machine: .*RAY_TMPDIR"):
        connect._start_local(Ray(), {})
