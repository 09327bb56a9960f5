"""Whatever dies at whatever moment: each row once if its commit returned, at most once otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from results.faults import Crash, Disk
from results.readers import everywhere
from results.sample import CONFIG, append, row

from seer_ray.config.compose import to_yaml
from seer_ray.engine.request import Counters
from seer_ray.results import ledger, progress, schema
from seer_ray.results.entry import parquet
from seer_ray.results.folder import RunFolder
from seer_ray.results.seal import seal
from seer_ray.results.store import Store

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


Change = tuple[Callable[[RunFolder], object], dict[tuple[str, int], str | None]]
"""What is done to a folder with rows a to d, of which c is an error; its rows with their answers after it."""


def regrade(folder: RunFolder) -> None:
    def change(rows: pa.Table) -> pa.Table:
        place = rows.column_names.index("extracted_answer")
        return rows.set_column(place, "extracted_answer", pa.array(["x"] * rows.num_rows, pa.large_string()))

    folder.rewrite("another grader", change)


BEFORE: dict[tuple[str, int], str | None] = {("a", 0): "a", ("b", 0): "b", ("c", 0): None, ("d", 0): "d"}
CHANGES: dict[str, Change] = {
    "commit": (lambda folder: folder.commit([row("e", 0), row("e", 1)]), {("e", 0): "e", ("e", 1): "e"}),
    "withdrawal": (lambda folder: folder.withdraw([("c", 0)]), {}),
    "retry": (
        lambda folder: (folder.withdraw([("c", 0)]), folder.commit([row("c", 0)])),
        {("c", 0): "c"},
    ),
    "regrade": (regrade, dict.fromkeys(BEFORE, "x")),
}


@pytest.mark.parametrize(
    ("bytes_of_part", "losses"),
    [
        (1, LOSSES[:1]),
        pytest.param(1, LOSSES[1:], marks=pytest.mark.slow),
        pytest.param(1 << 20, LOSSES, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", CHANGES)
def test_at_each_step_all_readers_see_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, bytes_of_part: int, losses: tuple[str, ...]
) -> None:
    """The process dies at the first, second, ... operation on the disk, and the power goes or does not."""
    monkeypatch.setattr(ledger, "PART_BYTES", bytes_of_part)
    action, made = CHANGES[kind]

    def prepare(folder: RunFolder) -> None:
        for name in "abd":
            folder.commit([row(name)])
        folder.commit([row("c", error="died", extracted_answer=None, correct=None)])

    def verify(path: Path, returned: bool) -> None:
        found = everywhere(path)
        rows = {(problem, sample): answer for problem, sample, answer in found}
        after = {**BEFORE, **made}
        if kind == "withdrawal":
            del after["c", 0]
        assert not returned or rows == after
        # Nobody else's row is touched, and the row in question is old, new or, being made again, not there.
        for key in BEFORE.keys() | after.keys():
            kept = {BEFORE.get(key), after.get(key)} if key not in BEFORE or key not in after else set()
            if key in rows:
                assert rows[key] in {BEFORE.get(key, after.get(key)), after.get(key, BEFORE.get(key))} | kept
            else:
                assert key not in BEFORE or (key == ("c", 0) and kind in ("withdrawal", "retry")), key
        assert len({key in rows for key in made.keys() - BEFORE.keys()}) <= 1, "a commit is whole"
        with RunFolder.open(str(path), CONFIG) as folder:
            if kind == "commit":
                if ("e", 0) not in rows:
                    action(folder)
            elif kind == "retry":
                folder.withdraw([("c", 0)])
                folder.commit([row("c", 0)])
            else:
                action(folder)
            assert {found[:2]: found[2] for found in everywhere(path)} == after

    assert each_failure(tmp_path, monkeypatch, prepare, action, verify, losses) >= 10


def test_opening_after_a_crash_may_crash_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    rows = {("a", 0): 1, ("b", 0): 1}

    def leave_a_commit_half_done(folder: RunFolder) -> None:
        commit_each(folder, "ab")
        with monkeypatch.context() as patch, pytest.raises(Crash):
            Disk(patch, fail_at=7)
            folder.commit([row("c")])
        die(folder)

    def reopen(folder: RunFolder) -> None:
        RunFolder.open(folder.uri, CONFIG).close()

    def verify(path: Path, returned: bool) -> None:
        assert {found[:2] for found in everywhere(path)} == rows.keys()
        with RunFolder.open(str(path), CONFIG) as folder:
            folder.commit([row("c")])
            assert keys(folder) == rows | {("c", 0): 1}

    losses = ("nothing", "all")
    assert each_failure(tmp_path, monkeypatch, leave_a_commit_half_done, reopen, verify, losses) > 3


def test_an_old_compaction_that_was_cut_short_is_ended(tmp_path: Path) -> None:
    """Before 0.3, small parts were merged, and an entry said which ones its part supersedes."""
    path = tmp_path / "run"
    with RunFolder.open(str(path), CONFIG) as folder:
        commit_each(folder, "abc")
        store, run_id = folder.store, folder.run_id
        merged = (path / "completions/part-000001.parquet").read_bytes()
        for number, name in enumerate("abc", start=1):
            content = parquet(schema.table([row(name)], folder._ledger.metadata)).to_pybytes()
            old_part(store, run_id, f"00000{number}-0000000{number}", content, [[name, 0]], [])
        for name in ("completions/part-000001.parquet", "ledger/000001.json"):
            (path / name).unlink()
        stems = [f"00000{number}-0000000{number}" for number in (1, 2, 3)]
        old_part(store, run_id, "000004-00000004", merged, [[name, 0] for name in "abc"], stems)
        die(folder)
        folder._lock = None
    expected = {("a", 0): 1, ("b", 0): 1, ("c", 0): 1}
    assert keys(RunFolder.view(str(path))) == expected
    with RunFolder.open(str(path), CONFIG) as folder:
        folder.commit([row("d")])
        assert keys(folder) == expected | {("d", 0): 1}
    assert len(everywhere(path)) == 4
    assert len(list((path / "completions").iterdir())) == len(list((path / "ledger").iterdir())) == 1


def old_part(
    store: Store, run_id: str, stem: str, content: bytes, keys: list[list[Any]], supersedes: list[str]
) -> None:
    """A part and its entry as versions before 0.3 wrote them."""
    digest = hashlib.sha256(content).hexdigest()
    said = {"rows": len(keys), "size": len(content), "keys": keys, "supersedes": supersedes, "sha256": digest}
    entry = seal({**said, "run_id": run_id, "file": f"ledger/{stem}.json"})
    store.write(f"completions/part-{stem}.parquet", content)
    store.write(f"ledger/{stem}.json", json.dumps(entry).encode())


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


@pytest.mark.parametrize("kind", CHANGES)
def test_a_full_disk_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The process lives on after the error, and tries again when there is room."""
    action, made = CHANGES[kind]
    after = {**BEFORE, **made}
    if kind == "withdrawal":
        del after["c", 0]
    for failures in itertools.count():
        path = tmp_path / f"{failures}"
        with RunFolder.open(str(path), CONFIG) as folder:
            commit_each(folder, "abd")
            folder.commit([row("c", error="died", extracted_answer=None, correct=None)])
            with monkeypatch.context() as patch:
                disk = Disk(patch, fail_at=failures, dies=False)
                with contextlib.suppress(OSError):
                    action(folder)
            there = folder.committed()
            assert {found[:2] for found in everywhere(path)} == there
            if kind == "retry" and ("c", 0) not in there:
                folder.commit([row("c")])
            elif kind != "commit" or ("e", 0) not in there:
                action(folder)
            assert {found[:2]: found[2] for found in everywhere(path)} == after
        assert len(list((path / "completions").iterdir())) == 1
        if not disk.failed:
            return
