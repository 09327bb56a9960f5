from __future__ import annotations

import errno
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from fake_engine import expected_tokens, make_request, trace_at
from results.sample import append
from tiny import tiny_tokenizer

from seer_ray.cluster.assignments import Outcome
from seer_ray.config.errors import FolderGone, JobError, NotWritten
from seer_ray.config.options import RunConfig
from seer_ray.driver import outage
from seer_ray.driver.decode import _save
from seer_ray.driver.rows import RowWriter
from seer_ray.engine.request import Completion, Counters
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.results import lock
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.grading import Grade, Grader
from seer_ray.tasks.problem import Problem, Prompt
from seer_ray.tasks.thinking import ReasoningParser


class Held(dict[str, Prompt]):
    """Prompts that are there."""

    def write(self) -> None: ...

    def close(self, problem: str) -> None:
        del self[problem]


class Case:
    """A row writer on a folder of its own, that commits at once."""

    def __init__(
        self,
        tmp_path: Path,
        pool: Grader | None = None,
        tokenizer: Any = None,
        uri: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        **results: Any,
    ) -> None:
        self.config = RunConfig(name="job")
        self.config.task.grader = "exact"
        self.config.results.part_interval = self.config.results.progress_interval = 0.0
        for name, value in results.items():
            setattr(self.config.results, name, value)
        self.folder = RunFolder.open(uri or str(tmp_path / "job"), self.config)
        self.log = self.folder.progress()
        self.notes: list[str] = []
        self.prompts = Held(
            (name, Prompt(Problem(name, (), "4"), f"{name}?", (1, 2), "<think>" if name == "f" else ""))
            for name in "abcdef"
        )
        parser = ReasoningParser(tokenizer or tiny_tokenizer())
        self.writer = RowWriter(
            self.folder,
            self.log,
            self.folder.ungraded(),
            self.config,
            self.prompts,
            parser,
            ThinkingRules(self.config, parser, tokenizer or tiny_tokenizer()),
            self.notes.append,
            pool,
            clock,
        )

    def done(self, problem: str, text: str, error: str | None = None) -> None:
        reason = "error" if error else "stop"
        tokens = tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]
        request = make_request(problem, opening="<think>" if problem == "f" else "")
        completion = Completion(request, tokens, text, reason, error)
        self.writer.add(Outcome(completion, None if error else "w0", 1), "2L:dense")

    def committed(self) -> dict[str, dict[str, Any]]:
        return {row["problem_id"]: row for row in self.folder.read().to_pylist()}


def test_rows_are_graded_committed_and_forgotten_by_the_log(tmp_path: Path) -> None:
    case = Case(tmp_path)
    for id, token in (("a/0", 7), ("c/0", 9)):
        append(case.log, id, [token], Counters(), 1)
    case.writer.write()
    assert set(case.log.chains) == {"a/0", "c/0"}
    case.done("a", "4")
    case.done("b", "5")
    graded = case.writer.finish()
    assert {row["problem_id"]: row["correct"] for row in graded} == {"a": True, "b": False}
    assert case.committed()["a"]["extracted_answer"] == "4"
    assert set(case.log.chains) == {"c/0"}
    assert case.writer.pending == 0
    case.writer.close()


def test_a_row_without_a_completion_is_not_graded(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.done("a", "so far", error="its worker died")
    (row,) = case.writer.graded()
    assert (row["correct"], row["completion"], row["error"]) == (None, "so far", "its worker died")
    case.writer.write()
    assert case.committed()["a"]["correct"] is None


class LostGrader:
    """Grades the first row, and can then not be started again."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def submit(self, key: Any, text: str, answer: str | None) -> None:
        self.rows.append((key, Grade(text == answer, text)))

    def collect(self, timeout: float = 0.0) -> list[tuple[Any, Grade]]:
        if self.rows and self.rows[0][0] == "a/0":
            return [self.rows.pop(0)]
        if self.rows:
            raise JobError("task.grader=mine:grade: no grading process could be started")
        return []

    def close(self) -> None: ...


def test_rows_that_cannot_be_graded_are_not_committed(tmp_path: Path) -> None:
    case = Case(tmp_path, pool=LostGrader())
    for id, token in (("a/0", 7), ("b/0", 8)):
        append(case.log, id, [token], Counters(), 1)
    case.done("a", "4")
    case.done("b", "4")
    with pytest.raises(JobError, match="no grading process"):
        case.writer.finish()
    assert [row["problem_id"] for row in case.writer.fresh()] == ["a"]
    assert list(case.committed()) == ["a"]
    # The other is on disk: a resume grades it.
    assert list(case.folder.ungraded()) == [("b", 0)] and not case.folder.progress().chains
    assert (case.writer.pending, case.writer.unsaved) == (1, 0)


class HungGrader:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, Grade]] = []
        self.free = False

    def submit(self, key: Any, text: str, answer: str | None) -> None:
        self.rows.append((key, Grade(text == answer, text)))

    def collect(self, timeout: float = 0.0) -> list[tuple[Any, Grade]]:
        found = self.rows if self.free else []
        self.rows = [row for row in self.rows if row not in found]
        return found

    def close(self) -> None: ...


def test_rows_whose_grades_take_long_outlive_the_driver(tmp_path: Path) -> None:
    case = Case(tmp_path, pool=HungGrader())
    for id in ("a/0", "b/0"):
        append(case.log, id, [7], Counters(), 1)
    case.done("a", "4")
    case.writer.write()
    assert (case.writer.to_grade, case.writer.unsaved) == (1, 1), "its grade may come at once"
    case.done("b", "5")
    for _ in range(2):
        assert case.writer.graded() == []
        case.writer.write()
    assert (case.writer.to_grade, case.writer.unsaved) == (2, 0)
    assert not case.log.chains and not {"a", "b"} & case.prompts.keys(), "nothing is held twice"
    assert case.committed() == {}, "it is no row of the run, and so not a wrong one"
    case.folder.close()

    pool = HungGrader()
    case = Case(tmp_path, pool=pool)
    case.prompts.clear()
    assert (case.writer.to_grade, case.writer.unsaved) == (2, 0)
    pool.free = True
    assert {row["problem_id"] for row in case.writer.finish()} == {"a", "b"}
    rows = case.committed()
    assert [rows[name]["correct"] for name in "ab"] == [True, False]
    assert [rows[name]["worker"] for name in "ab"] == ["w0", "w0"]
    assert case.writer.pending == 0 and not list((tmp_path / "job" / "ungraded").iterdir())


def test_a_full_disk_does_not_lose_rows_that_wait_for_grades(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    pool = HungGrader()
    case = Case(tmp_path, pool=pool, clock=lambda: clock[0])
    case.done("a", "4")
    case.writer.write()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(case.folder.store, "write", full)
        clock[0] += 60.0
        case.writer.write()
        assert case.writer.unsaved == 1 and "no space left on device; tried again" in case.notes[0]
    clock[0] += 60.0
    case.writer.write()
    assert case.writer.unsaved == 0
    pool.free = True
    case.writer.finish()
    assert case.committed()["a"]["correct"]


def test_what_a_row_attended_is_there_before_it_waits(tmp_path: Path) -> None:
    pool = HungGrader()
    case = Case(tmp_path, pool=pool)
    request = make_request("a", length=3)
    completion = Completion(request, expected_tokens(request), "4", "stop")
    trace = [trace_at(request, at) for at in range(3)]
    case.writer.add(Outcome(completion, "w0", 1, trace), "2L:dense")
    case.writer.finish(patience=0.0)
    case.folder.close()
    pool = HungGrader()
    case = Case(tmp_path, pool=pool)
    pool.free = True
    case.writer.finish()
    assert case.folder.recorded() == [("a", 0)]
    assert case.folder.read_selection(("a", 0)).trace.entries == trace


def test_a_part_is_written_when_it_is_full_and_not_before(tmp_path: Path) -> None:
    case = Case(tmp_path, part_rows=2, part_interval=3600.0)
    for problem in "abcde":
        case.done(problem, "", error="no")
        case.writer.graded()
        case.writer.write()
        if problem == "a":
            assert case.committed() == {}
    assert set(case.committed()) == {"a", "b", "c", "d"}
    case.writer.finish()
    assert set(case.committed()) == {"a", "b", "c", "d", "e"}


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path)
    clock = [1000.0]
    monkeypatch.setattr(case.writer, "_clock", lambda: clock[0])
    commit = case.folder.commit

    def written_but_told_of_a_failure(found: Any) -> None:
        commit(found)
        raise OSError("connection lost")

    monkeypatch.setattr(case.folder, "commit", written_but_told_of_a_failure)
    case.done("a", "", error="no")
    case.writer.write()
    assert "connection lost; tried again in 1 s" in case.notes[0]
    monkeypatch.setattr(case.folder, "commit", commit)
    case.done("b", "", error="no")
    case.writer.write()
    assert case.writer.pending == 2, "it is not tried again at once"
    clock[0] += 1.5
    case.writer.write()
    assert case.writer.pending == 0
    assert set(case.committed()) == {"a", "b"}


def test_a_disk_that_stays_full_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path)
    clock = [1000.0]
    monkeypatch.setattr(case.writer, "_clock", lambda: clock[0])

    def full(_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(case.folder, "commit", full)
    case.done("a", "", error="no")
    with pytest.raises(JobError, match=r"job: cannot be written: no space left on device$"):
        for _ in range(outage.MAX_FAILURES):
            case.writer.write()
            clock[0] += 2.0
    assert len(case.notes) == outage.MAX_FAILURES - 1


def test_a_folder_that_is_gone_is_told_at_once(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.done("a", "", error="no")
    shutil.rmtree(tmp_path / "job")
    with pytest.raises(FolderGone, match=r"job: the folder is gone; .* its rows are lost") as raised:
        case.writer.write()
    assert raised.value.kept is None and case.notes == []


def test_what_a_last_write_loses_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path)
    case.done("a", "", error="no")
    case.writer.graded()
    case.writer.write()
    case.done("b", "", error="no")

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(case.folder, "commit", full)

    class Saved:
        unsaved = property(lambda self: case.writer.unsaved)

        def save(self) -> None:
            case.writer.finish()

    failure = _save(Saved())  # type: ignore[arg-type]
    assert isinstance(failure, NotWritten) and failure.kept == "what was committed before is kept"
    assert str(failure).endswith("1 finished row is not on disk, and will be decoded again")
    assert set(case.committed()) == {"a"}


@pytest.mark.parametrize(
    ("problem", "text", "found", "reasoning", "answer", "correct"),
    [
        ("a", "<think>5</think>4", "4", "5", "4", True),
        ("a", "<think>4</think>5", "5", "4", "5", False),
        ("a", "<think>4", None, "4", None, False),
        ("f", "4", None, "4", None, False),
        ("f", "5</think>4", "4", "5", "4", True),
        ("a", "4", "4", None, "4", True),
    ],
)
def test_what_is_graded_is_the_answer(
    tmp_path: Path, problem: str, text: str, found: str, reasoning: str, answer: str, correct: bool
) -> None:
    case = Case(tmp_path)
    case.done(problem, text)
    case.writer.finish()
    case.writer.close()
    row = case.committed()[problem]
    assert row["completion"] == text
    assert (row["reasoning"], row["answer"]) == (reasoning, answer)
    assert (row["extracted_answer"], row["correct"]) == (found, correct)


def test_letters_of_a_mark_in_an_answer_cost_nothing(tmp_path: Path) -> None:
    """Where the mark is one token, and other tokens spell it."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    ids = tokenizer("<think>5</think>", add_special_tokens=False)["input_ids"]
    for letter in "It opens with <think>.\n4":
        ids += tokenizer(letter, add_special_tokens=False)["input_ids"]
    case = Case(tmp_path, tokenizer=tokenizer)
    case.writer.add(Outcome(Completion(make_request("a"), ids, "", "stop"), "w0", 1), "2L:dense")
    case.writer.finish()
    case.writer.close()
    row = case.committed()["a"]
    assert (row["answer"], row["extracted_answer"]) == ("It opens with <think>.\n4", "4")
    assert row["correct"]


class Away:
    """Storage that answers 503 for some time, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, begin: float, end: float) -> None:
        self.now = 0.0
        for name in ("open_output_stream", "open_input_file", "move", "delete_file"):
            real = getattr(pafs.FSSpecHandler, name)

            def ask(handler: Any, *arguments: Any, real: Any = real) -> Any:
                if begin <= self.now < end:
                    raise OSError("the store says 503 (Slow Down)")
                return real(handler, *arguments)

            monkeypatch.setattr(pafs.FSSpecHandler, name, ask)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock, "BEAT", 1000.0)
    monkeypatch.setattr(lock, "STALE", 0.0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return f"fsspec+memory://{uuid.uuid4().hex}/job"


def test_storage_that_is_away_for_ten_minutes_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str
) -> None:
    away = Away(monkeypatch, 5.0, 605.0)
    case = Case(tmp_path, uri=remote, clock=away.clock, part_rows=2, part_interval=1.0)
    for number, problem in enumerate("abcdef"):
        away.now = 90.0 * number
        case.done(problem, "", error="no")
        case.writer.graded()
        case.writer.write()
        assert case.writer.pending <= 2, "memory is bounded"
    assert list((tmp_path / "state").rglob("*.arrow")) and len(case.notes) == 1
    assert f"{case.folder.uri}: cannot be written: the store says 503 (Slow Down); tried " in case.notes[0]
    away.now = 700.0
    case.writer.write()
    assert set(case.committed()) == set("abcdef") and case.folder.read().num_rows == 6
    assert len(case.notes) == 2 and "can be written again, after " in case.notes[1]
    assert not list((tmp_path / "state").rglob("*.arrow"))


def test_rows_that_wait_on_this_machine_survive_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str
) -> None:
    away = Away(monkeypatch, 5.0, 1e6)
    case = Case(tmp_path, uri=remote, clock=away.clock, part_rows=1, max_outage=3600.0)
    case.done("a", "", error="no")
    case.writer.finish()
    away.now = 10.0
    for problem in "bc":
        case.done(problem, "", error="no")
        case.writer.graded()
        case.writer.write()
    away.now = 3700.0
    with pytest.raises(NotWritten, match=r"503 .*; finished rows wait in .*state/seer-ray/"):
        case.writer.write()
    assert case.writer.next_try is None, "it is given up"
    case.folder._lock = None
    away.now = 2e6
    with RunFolder.open(remote, case.config) as folder:
        assert {key[0] for key in folder.committed()} == set("abc")
    assert not list((tmp_path / "state").rglob("*.arrow"))
