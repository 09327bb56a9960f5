"""What a job needs is away for a while: nothing is lost, one line says so, and it goes on by itself or by the
same command."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_engine
import pytest
from fake_engine import expected_tokens, make_request
from jobs.conftest import MakeConfig

from seer_ray.config.errors import JobError, NotWritten
from seer_ray.config.options import RunConfig
from seer_ray.driver import outage
from seer_ray.jobs import run
from seer_ray.results import store
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


class Fault:
    """A disk that refuses from ``begin`` to ``end``.

    Args:
        begin, end: What does it.
        said: What the disk says then.
    """

    def __init__(self, begin: Callable[[], Any], end: Callable[[], Any], said: str) -> None:
        self.begin, self.end, self.said = begin, end, said


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    """A small disk of its own with the runs on it, or one that only says that it is full."""
    disk, said = tmp_path / "runs", os.strerror(errno.ENOSPC)
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        yield refusing(monkeypatch, errno.ENOSPC)
        return
    ballast = disk / "ballast"

    def fill() -> None:
        with ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC

    try:
        yield Fault(fill, ballast.unlink, said)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Fault:
    return refusing(monkeypatch, errno.EROFS)


def refusing(monkeypatch: pytest.MonkeyPatch, number: int) -> Fault:
    """A disk that takes no file."""
    written, refused = store.write_file, []

    def write(path: Path, data: Any) -> None:
        if refused:
            raise OSError(number, os.strerror(number), str(path))
        written(path, data)

    monkeypatch.setattr(store, "write_file", write)
    return Fault(lambda: refused.append(True), refused.clear, os.strerror(number))


class Watcher(NullReporter):
    """Begins a fault when a row is done, and ends it after some notes of it.

    Args:
        fault: Which.
        notes: How many; None: it does not end it.
    """

    def __init__(self, fault: Fault, notes: int | None = None) -> None:
        self.fault, self.wanted, self.begun = fault, notes, False
        self.notes: list[str] = []

    def update(self, live: LiveStats) -> None:
        if live.done and not self.begun:
            self.begun = True
            self.fault.begin()

    def note(self, message: str) -> None:
        if self.fault.said in message:
            self.notes.append(message)
            if len(self.notes) == self.wanted:
                self.fault.end()


@pytest.fixture(params=["full", "read_only"])
def fault(request: pytest.FixtureRequest) -> Fault:
    found: Fault = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def config(fault: Fault, letters: MakeConfig) -> RunConfig:
    """Lasts until the disk was refused twice."""
    found: RunConfig = letters(ids="abcdefgh", tokens=60)
    found.engine.max_batch, found.results.part_interval = 1, 0.0
    return found


def check_rows(config: RunConfig, ids: str) -> None:
    """Each is there once, with its tokens."""
    found = RunFolder.view(f"{config.results.folder}/{config.name}").read().to_pylist()
    rows = {(row["problem_id"], row["sample"]): row for row in found}
    assert len(found) == len(rows) and rows.keys() == {(id, sample) for id in ids for sample in (0, 1)}
    for (id, sample), row in rows.items():
        wanted = expected_tokens(make_request(id, sample, config.sampling.max_new_tokens))
        assert (row["token_ids"], row["error"]) == (wanted, None)


def test_a_disk_that_takes_nothing_for_a_while(fault: Fault, config: RunConfig) -> None:
    watcher = Watcher(fault, notes=2)
    assert run.main(config, watcher, fake_engine.build_slow).rows == 16
    for note in watcher.notes:
        assert note.startswith(f"{config.results.folder}/job: cannot be written: ") and "\n" not in note
        assert note.endswith("; tried again in 1 s")
    assert len(watcher.notes) == 2
    check_rows(config, "abcdefgh")


def test_a_disk_that_takes_nothing_ends_the_job_and_the_same_command_goes_on(
    fault: Fault, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "MAX_FAILURES", 2)
    with pytest.raises(NotWritten) as raised:
        run.main(config, Watcher(fault), fake_engine.build_slow)
    said = str(raised.value)
    assert said.startswith(f"{config.results.folder}/job: cannot be written: ") and fault.said in said
    assert "\n" not in said
    before = RunFolder.view(f"{config.results.folder}/job").read(["problem_id"]).num_rows
    fault.end()
    summary = run.main(config, build=fake_engine.build_fake)
    assert (summary.rows, summary.resumed) == (16, before)
    check_rows(config, "abcdefgh")


def test_a_job_whose_workers_die_goes_on_when_the_cause_is_mended(letters: MakeConfig) -> None:
    """The circuit breaker ended it."""
    config = letters(ids="abcdefgh")
    config.engine.max_batch, config.results.part_interval = 2, 0.0
    Path(config.results.folder).mkdir()
    with pytest.raises(JobError, match="workers in a row died with requests"):
        run.main(config, build=fake_engine.build_until_mended)
    rows = RunFolder.view(f"{config.results.folder}/job").read()
    assert 4 <= rows.num_rows < 16 and rows["error"].null_count == rows.num_rows, "no row is made of it"
    Path(config.results.folder, fake_engine.MENDED).touch()
    summary = run.main(config, build=fake_engine.build_until_mended)
    assert (summary.rows, summary.resumed) == (16, rows.num_rows)
    check_rows(config, "abcdefgh")
