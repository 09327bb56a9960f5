"""Whatever dies at whatever moment: each row once if its commit returned, at most once otherwise."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from results.faults import Crash, Disk
from results.sample import CONFIG, append, row

from seer_ray.config.compose import to_yaml
from seer_ray.engine.request import Counters
from seer_ray.results import progress
from seer_ray.results.folder import RunFolder

LOSSES = ("nothing", "all", "first", "last")


def keys(folder: RunFolder) -> Counter[tuple[str, int]]:
    table = folder.read(["problem_id", "sample"])
    return Counter(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))


def commit_each(folder: RunFolder, names: str) -> None:
    for name in names:
        folder.commit([row(name)])


def die(folder: RunFolder) -> None:
    """What the kernel does for a dead process."""
    assert folder._lock is not None
    folder._lock.release()


def each_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[RunFolder], object],
    action: Callable[[RunFolder], object],
    verify: Callable[[Path, bool], None],
    losses: tuple[str, ...] = LOSSES,
) -> int:
    """Run ``action`` on a new folder with the process dying at its first, second, ... operation on the disk;
    ``verify(path, returned)`` looks at what is left. Returns how many operations there are."""
    failures = 0
    while True:
        for loss in losses:
            path = tmp_path / f"{failures}-{loss}"
            with RunFolder.open(str(path), CONFIG) as folder:
                prepare(folder)
                with monkeypatch.context() as patch:
                    disk = Disk(patch, fail_at=failures)
                    try:
                        action(folder)
                        returned = True
                    except Crash:
                        returned = False
                if loss != "nothing":
                    disk.lose(loss)
                die(folder)
                folder._lock = None
            verify(path, returned)
        if not disk.failed:
            return failures
        failures += 1


def test_commit_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {("a", 0): 1, ("b", 0): 1}
    new = {("c", 0): 1, ("c", 1): 1}

    def verify(path: Path, returned: bool) -> None:
        seen = keys(RunFolder.view(str(path)))
        assert seen in ([before | new] if returned else [before, before | new])
        with RunFolder.open(str(path), CONFIG) as folder:
            assert keys(folder) == seen
            if seen == before:
                folder.commit([row("c", 0), row("c", 1)])
            assert keys(folder) == before | new
        assert len(list((path / "completions").iterdir())) == len(list((path / "ledger").iterdir())) == 3

    operations = each_failure(
        tmp_path,
        monkeypatch,
        lambda folder: commit_each(folder, "ab"),
        lambda folder: folder.commit([row("c", 0), row("c", 1)]),
        verify,
    )
    assert operations == 2 * 5, (
        "create, write, sync, rename and sync of the folder, for the part and the entry"
    )


def test_compaction_keeps_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {(name, 0): 1 for name in "abcd"}

    def verify(path: Path, returned: bool) -> None:
        assert keys(RunFolder.view(str(path))) == rows
        with RunFolder.open(str(path), CONFIG) as folder:
            assert keys(folder) == rows
            folder.compact()
            assert keys(folder) == rows
            folder.commit([row("e")])
            assert keys(folder) == rows | {("e", 0): 1}
        assert len(list((path / "completions").iterdir())) == len(list((path / "ledger").iterdir())) == 2

    operations = each_failure(
        tmp_path,
        monkeypatch,
        lambda folder: commit_each(folder, "abcd"),
        RunFolder.compact,
        verify,
    )
    assert operations == 2 * 5 + 2 * (4 + 1)


def test_opening_after_a_crash_may_crash_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {(name, 0): 1 for name in "abc"}

    def leave_a_compaction_half_done(folder: RunFolder) -> None:
        commit_each(folder, "abc")
        with monkeypatch.context() as patch, pytest.raises(Crash):
            Disk(patch, fail_at=11)
            folder.compact()
        die(folder)

    def reopen(folder: RunFolder) -> None:
        RunFolder.open(folder.uri, CONFIG).close()

    def verify(path: Path, returned: bool) -> None:
        assert keys(RunFolder.view(str(path))) == rows
        with RunFolder.open(str(path), CONFIG) as folder:
            assert keys(folder) == rows
        assert len(list((path / "completions").iterdir())) == 1

    assert each_failure(tmp_path, monkeypatch, leave_a_compaction_half_done, reopen, verify) > 3


def test_creation_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for failures in range(100):
        path = tmp_path / str(failures)
        with monkeypatch.context() as patch:
            disk = Disk(patch, fail_at=failures)
            with contextlib.suppress(Crash):
                RunFolder.open(str(path), CONFIG).close()
        with RunFolder.open(str(path), CONFIG) as folder:
            folder.commit([row("a")])
        assert RunFolder.view(str(path)).config_yaml == to_yaml(CONFIG)
        assert not list(path.glob("**/.*.tmp"))
        if not disk.failed:
            return
    raise AssertionError("creation never ended")


@pytest.mark.parametrize("rewrite", [False, True])
def test_flush_keeps_what_was_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewrite: bool) -> None:
    if rewrite:
        monkeypatch.setattr(progress, "MAX_SEGMENTS", 2)
    old = {"p/0": (1, 2, 3), "p/1": (4,), "q/0": (7, 7)}
    new = {"p/0": (1, 2, 3, 5), "p/1": (9, 9), "r/0": (8,)}

    def prepare(folder: RunFolder) -> None:
        log = folder.progress()
        append(log, "p/0", [1, 2], Counters(), 1)
        append(log, "q/0", [7], Counters(), 1)
        log.flush()
        append(log, "p/0", [3], Counters(), 1)
        append(log, "p/1", [4], Counters(), 1)
        append(log, "q/0", [7], Counters(), 1)
        log.flush()

    def action(folder: RunFolder) -> None:
        log = folder.progress()
        append(log, "p/0", [5], Counters(attended_kv=5), 1)
        append(log, "p/1", [9, 9], Counters(), 2, offset=0)
        append(log, "r/0", [8], Counters(), 1)
        log.forget(["q/0"])
        log.flush()

    def verify(path: Path, returned: bool) -> None:
        with RunFolder.open(str(path), CONFIG) as folder:
            found = {id: chain.progress.tokens for id, chain in folder.progress().chains.items()}
            found.pop("q/0", None)
            kept = {name: tokens for name, tokens in old.items() if name != "q/0"}
            assert found in ([new] if returned else [kept, new])
            folder.commit([row("p", 0), row("p", 1), row("q", 0), row("r", 0)])
            log = folder.progress()
            assert not log.chains
            log.flush()
        assert not list((path / "progress").iterdir())

    each_failure(tmp_path, monkeypatch, prepare, action, verify)


def test_a_full_disk_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process lives on after the error, and tries again when there is room."""
    for action in (lambda folder: folder.commit([row("c")]), RunFolder.compact):
        for failures in range(100):
            path = tmp_path / f"{action}-{failures}"
            with RunFolder.open(str(path), CONFIG) as folder:
                commit_each(folder, "ab")
                with monkeypatch.context() as patch:
                    disk = Disk(patch, fail_at=failures, dies=False)
                    if disk.fail_at is not None:
                        try:
                            action(folder)
                        except OSError as error:
                            assert "No space left" in str(error)
                if ("c", 0) not in folder.committed():
                    folder.commit([row("c")])
                expected = {(name, 0): 1 for name in "abc"}
                assert keys(folder) == keys(RunFolder.view(str(path))) == expected
                folder.compact()
                assert keys(folder) == expected
            with RunFolder.open(str(path), CONFIG) as folder:
                assert keys(folder) == expected
            assert len(list((path / "completions").iterdir())) == 1
            if not disk.failed:
                break
        else:
            raise AssertionError("the action never succeeded")
