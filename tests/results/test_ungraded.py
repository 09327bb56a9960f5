from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from results.readers import everywhere
from results.sample import CONFIG, row
from results.test_crash import LOSSES, each_failure
from results.test_crash_remote import Cloud

from seer_ray.config.errors import ConfigError
from seer_ray.results import lock
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import Store
from seer_ray.results.ungraded import FOLDER, UngradedRows


def waiting(problem: str) -> dict[str, Any]:
    """A row without its grade, with what a list, a struct and a null column hold."""
    likely = {"token_id": 1, "token": "x", "logprob": -0.5}
    logprobs = [{**likely, "top": [likely]}] * 3
    ungraded = {"correct": None, "extracted_answer": None, "grade_error": None}
    return row(problem, answer=problem, logprobs=logprobs, attended_kv_layers=[10, 20], **ungraded)


def graded(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "correct": True, "extracted_answer": found["problem_id"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_rows_come_back_as_they_were_and_go_when_they_are_committed(path: Path) -> None:
    with RunFolder.open(str(path), CONFIG) as folder:
        late = folder.ungraded()
        late.add([waiting("a"), waiting("b")])
        late.add([waiting("c")])
        assert late.take() == [], "this session has them"
    with RunFolder.open(str(path), CONFIG) as folder:
        late = folder.ungraded()
        assert set(late) == {("a", 0), ("b", 0), ("c", 0)} and len(late) == 3
        found = {row["problem_id"]: row for row in late.take()}
        assert found["a"]["token_ids"].tolist() == [1, 2, 3]
        for name, value in waiting("a").items():
            assert name == "token_ids" or found["a"][name] == value
        folder.commit(graded(found[name]) for name in "ac")
        late.forget([("a", 0), ("c", 0)])
        late.tidy()
        assert set(late) == {("b", 0)} and len(folder.store.list(FOLDER)) == 1
    with RunFolder.open(str(path), CONFIG) as folder:
        late = folder.ungraded()
        assert [row["problem_id"] for row in late.take()] == ["b"]
        assert folder.committed() == {("a", 0), ("c", 0)}


def test_what_is_not_whole_or_of_another_run_is_not_believed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder.open(str(path), CONFIG) as folder:
        folder.ungraded().add([waiting("a")])
        folder.ungraded().add([waiting("b")])
        first = sorted(path.glob(f"{FOLDER}/*"))[0]
        data = bytearray(first.read_bytes())
        data[len(data) // 2] ^= 1
        first.write_bytes(data)
    with RunFolder.open(str(path.with_name("other")), CONFIG) as other:
        other.ungraded().add([waiting("c")])
        (foreign,) = path.with_name("other").glob(f"{FOLDER}/*")
        (path / FOLDER / foreign.name.replace("000001", "000003")).write_bytes(foreign.read_bytes())
    with RunFolder.open(str(path), CONFIG) as folder:
        late = folder.ungraded()
        assert set(late) == {("b", 0)}
        said = [record.getMessage() for record in caplog.records]
        assert "is torn; its rows are decoded again" in said[-2]
        assert "of another run; its rows are decoded again" in said[-1]
        late.tidy()
        assert len(folder.store.list(FOLDER)) == 1


def test_storage_that_fails_to_read_is_no_torn_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(str(path), CONFIG) as folder:
        folder.ungraded().add([waiting("a")])

        def away(*_: object) -> bytes:
            raise OSError("503")

        monkeypatch.setattr(Store, "read", away)
        with pytest.raises(ConfigError, match=r"\.rows: cannot be read \(503\); try again"):
            UngradedRows(folder.store, folder._ledger.metadata)


def work(folder: RunFolder) -> None:
    """A session: a row of the one before gets its grade, others wait, one of them gets its grade."""
    late = folder.ungraded()
    before = late.take()
    late.add([waiting("c"), waiting("d")])
    done = [graded(found) for found in (*before, waiting("c"))]
    folder.commit(done)
    late.forget((found["problem_id"], 0) for found in done)
    late.tidy()


def prepare(folder: RunFolder) -> None:
    folder.commit([row("a")])
    folder.ungraded().add([waiting("b")])


def finish(folder: RunFolder) -> None:
    """What a session after a death does: nothing but grading of what is there."""
    late = folder.ungraded()
    assert not set(late) & folder.committed(), "a row that is committed waits for nothing"
    found = late.take()
    assert len(found) == len(late)
    folder.commit(map(graded, found))
    late.forget([(row["problem_id"], 0) for row in found])
    late.tidy()
    assert folder.store.list(FOLDER) == {}


@pytest.mark.parametrize("losses", [LOSSES[:1], pytest.param(LOSSES[1:], marks=pytest.mark.slow)])
def test_a_death_at_any_step_loses_and_doubles_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, losses: tuple[str, ...]
) -> None:
    def verify(path: Path, returned: bool) -> None:
        assert not {found[0] for found in everywhere(path)} - set("abc"), "d has no grade"
        with RunFolder.open(str(path), CONFIG) as folder:
            there = {key[0] for key in (*folder.ungraded(), *folder.committed())}
            assert there in (set("ab"), set("abcd"))
            assert not returned or there == set("abcd")
            finish(folder)
            assert {key[0] for key in folder.committed()} == there
        assert sorted(found[0] for found in everywhere(path)) == sorted(there)

    assert each_failure(path, monkeypatch, prepare, work, verify, losses) > 10


@pytest.mark.parametrize("done", [True, False])
def test_a_death_at_any_step_far_away(monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    for fail_at in range(100):
        uri = f"fsspec+memory://{uuid.uuid4().hex}/run"
        folder = RunFolder.open(uri, CONFIG)
        prepare(folder)
        returned = True
        with monkeypatch.context() as patch:
            cloud = Cloud(patch, fail_at, True, done)
            try:
                work(folder)
            except OSError:
                returned = False
        folder.close()
        with RunFolder.open(uri, CONFIG) as folder:
            there = {key[0] for key in (*folder.ungraded(), *folder.committed())}
            assert there in (set("ab"), set("abcd")) and (not returned or there == set("abcd"))
            finish(folder)
            keys = folder.read(["problem_id"])["problem_id"].to_pylist()
            assert sorted(keys) == sorted(there)
        if not cloud.failed:
            assert fail_at >= 6
            return
    raise AssertionError("never succeeded")
