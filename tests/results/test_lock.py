from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
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
        folder.withdraw([("p", sample)])
        folder.commit([row("p", sample)])
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
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with (
        RunFolder.open(str(tmp_path / "run"), CONFIG),
        pytest.raises(ConfigError, match="in use by process"),
    ):
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


class Time:
    """A clock that goes on when somebody sleeps; meanwhile, something may happen."""

    def __init__(self, happens: Callable[[float], object] = lambda now: None) -> None:
        self.now, self._happens = 0.0, happens

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._happens(self.now)


@pytest.mark.parametrize("behind", [-1e6, -61.0, 0.0, 61.0, 1e6])
def test_a_living_heartbeat_is_respected_whatever_its_clock_says(store: Store, behind: float) -> None:
    claim(store, time=time.time() - behind)
    beating = Time(lambda now: claim(store, time=time.time() - behind + now))
    with pytest.raises(ConfigError, match=r"in use by process 4 on far; stop it"):
        lock.HeartbeatLock(store, beating.clock, beating.sleep).acquire()
    assert beating.now <= lock.BEAT


def test_a_heartbeat_that_has_stopped_is_taken_over(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    claim(store, time=time.time() + 1000)
    quiet = Time()
    mine = lock.HeartbeatLock(store, quiet.clock, quiet.sleep)
    mine.acquire()
    assert lock.STALE <= quiet.now < lock.STALE + lock.BEAT
    assert caplog.messages == [f"{store.uri}: held by process 4 on far; seeing for 60 s whether it is alive"]
    mine.release()
    assert lock.NAME not in store.list()


def test_the_heartbeat_of_a_process_that_is_gone_is_taken_over_at_once(store: Store) -> None:
    claim(store, machine=lock._machine(), pid=2**22 + 1)
    quiet = Time()
    lock.HeartbeatLock(store, quiet.clock, quiet.sleep).acquire()
    assert quiet.now <= lock.SETTLE


def test_a_torn_lock_is_taken_over(store: Store) -> None:
    store.write(lock.NAME, b'{"owner": "torn')
    quiet = Time()
    lock.HeartbeatLock(store, quiet.clock, quiet.sleep).acquire()


def test_of_two_contenders_one_wins(store: Store) -> None:
    meeting = Time(lambda now: claim(store))
    with pytest.raises(ConfigError, match="taken over by process 4 on far"):
        lock.HeartbeatLock(store, meeting.clock, meeting.sleep).acquire()


def test_the_heartbeat_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock, "BEAT", 0.001)
    store = open_store(str(tmp_path))  # fsspec's memory is not for two threads
    mine = lock.HeartbeatLock(store)
    mine.acquire()
    first = mine._read()[0]
    assert first is not None
    while (now := mine._read()[0]) is not None and now["time"] == first["time"]:
        assert mine._thread is not None and mine._thread.is_alive()
        time.sleep(0.001)
    assert now is not None and now["owner"] == mine.owner
    mine.release()


def test_who_lost_the_lock_does_not_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    folder = RunFolder.open(f"fsspec+memory://{uuid.uuid4().hex}/run", CONFIG)
    claim(folder.store)
    with pytest.raises(ConfigError, match="taken over"):
        folder.commit([row("a")])
    assert RunFolder.view(folder.uri).committed() == set()
    folder.close()
    assert json.loads(folder.store.read(lock.NAME))["owner"] == "other"
