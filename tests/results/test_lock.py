from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from results.sample import CONFIG, row

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.results import lock
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import Store, open_store

WRITER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from results.sample import CONFIG, row
from seer_ray.results.folder import RunFolder
folder = RunFolder.open(sys.argv[1], CONFIG)
for sample in range(sys.maxsize):
    if ("p", sample) not in folder.committed():
        folder.commit([row("p", sample)])
        print(sample, flush=True)
    if sample % 7 == 6:
        folder.compact()
"""


def test_killed_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    """Real processes, real SIGKILLs: the next one takes the lock over and goes on."""
    path = tmp_path / "run"
    for lines in (1, 6, 13):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        promised = [int(writer.stdout.readline()) for _ in range(lines)]
        with pytest.raises(ConfigError, match=rf"in use by process {writer.pid} on .* since "):
            RunFolder.open(str(path), CONFIG)
        writer.kill()
        promised += [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        with RunFolder.open(str(path), CONFIG) as folder:
            samples = folder.read(["sample"])["sample"].to_pylist()
        assert sorted(samples) == sorted(set(samples))
        assert set(promised) <= set(samples)


def test_one_writer_at_a_time_in_one_process(tmp_path: Path) -> None:
    folder = RunFolder.open(str(tmp_path / "run"), CONFIG)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        RunFolder.open(str(tmp_path / "run"), CONFIG)
    folder.close()
    RunFolder.open(str(tmp_path / "run"), CONFIG).close()


def test_a_refused_opening_leaves_no_lock(tmp_path: Path) -> None:
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit([row("a", 0)])
    with pytest.raises(ConfigError, match="other settings"):
        RunFolder.open(str(tmp_path / "run"), RunConfig(seed=5))
    RunFolder.open(str(tmp_path / "run"), CONFIG).close()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A grader's process that outlives a killed driver would lock the run for as long as it hangs."""
    first = lock.FileLock(tmp_path / "lock")
    assert first.acquire()
    ours, theirs = os.pipe()
    ready, started = os.pipe()
    if (child := os.fork()) == 0:
        os.close(theirs)
        os.write(started, b"1")
        os.read(ours, 1)  # until the parent closes its end
        os._exit(0)
    try:
        os.read(ready, 1)
        first.release()
        assert lock.FileLock(tmp_path / "lock").acquire()
    finally:
        os.close(theirs)
        os.waitpid(child, 0)
        for end in (ours, ready, started):
            os.close(end)


def test_a_disk_without_locks_gets_a_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock.HeartbeatLock.__init__, "__defaults__", (1000.0, 60.0, 0.0))
    with RunFolder.open(str(tmp_path / "run"), CONFIG), pytest.raises(ConfigError, match="last sign of life"):
        RunFolder.open(str(tmp_path / "run"), CONFIG)
    RunFolder.open(str(tmp_path / "run"), CONFIG).close()


@pytest.fixture
def store() -> Store:
    found = open_store(f"fsspec+memory://{uuid.uuid4().hex}/run")
    found.make_folder()
    return found


def claim(store: Store, **changes: object) -> None:
    """Another process's heartbeat."""
    held = {"owner": "other", "pid": 4, "host": "far", "machine": "far", "time": time.time(), **changes}
    store.write(lock.NAME, json.dumps(held).encode())


def test_a_living_heartbeat_is_respected(store: Store) -> None:
    claim(store, time=time.time() - 25)
    with pytest.raises(
        ConfigError, match=r"process 4 on far, last sign of life 2\d s ago; .* again in 3\d s"
    ):
        lock.HeartbeatLock(store, settle=0).acquire()


@pytest.mark.parametrize(
    "content", [{"time": 1.0}, {"machine": lock._machine(), "pid": 2**22 + 1}, {"pid": None}]
)
def test_a_dead_heartbeat_is_taken_over(store: Store, content: dict[str, object]) -> None:
    claim(store, **content)
    if content.get("pid", 4) is None:
        store.write(lock.NAME, b'{"owner": "torn')
    mine = lock.HeartbeatLock(store, settle=0)
    mine.acquire()
    mine.check()
    mine.release()
    assert lock.NAME not in store.list()


def test_of_two_contenders_one_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    loser = lock.HeartbeatLock(store)
    monkeypatch.setattr(lock.time, "sleep", lambda _: claim(store))
    with pytest.raises(ConfigError, match="taken over by process 4 on far"):
        loser.acquire()


def test_the_heartbeat_beats(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))  # fsspec's memory is not for two threads
    mine = lock.HeartbeatLock(store, beat=0.001, settle=0)
    mine.acquire()
    first = mine._read()
    assert first is not None
    while (now := mine._read()) is not None and now["time"] == first["time"]:
        assert mine._thread is not None and mine._thread.is_alive()
        time.sleep(0.001)
    assert now is not None and now["owner"] == mine.owner
    mine.release()


def test_who_lost_the_lock_does_not_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.HeartbeatLock.__init__, "__defaults__", (1000.0, 60.0, 0.0))
    folder = RunFolder.open(f"fsspec+memory://{uuid.uuid4().hex}/run", CONFIG)
    claim(folder.store)
    with pytest.raises(ConfigError, match="taken over"):
        folder.commit([row("a")])
    assert RunFolder.view(folder.uri).committed() == set()
    folder.close()
    assert json.loads(folder.store.read(lock.NAME))["owner"] == "other"
