"""The main job with real Ray, results and grading; only its engine needs no model."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import fake_engine
import pytest
from fake_engine import expected_tokens, make_request
from jobs.conftest import MakeConfig

from seer_ray.cluster.worker import Builder
from seer_ray.config.errors import ConfigError, Interrupted, JobError
from seer_ray.config.options import RunConfig
from seer_ray.driver import run as driver_run
from seer_ray.driver import session
from seer_ray.jobs import run as run_job
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter, Summary

PROMPT_TOKENS = len("*user\na?*\n*assistant\n")
"""Of a question of two letters; a byte is a token, and so is a special token (*)."""


pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def config(letters: MakeConfig) -> RunConfig:
    return letters()


class Recorder(NullReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []
        self.summary: Summary | None = None

    def update(self, live: LiveStats) -> None:
        if live.phase not in self.phases:
            self.phases.append(live.phase)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self, summary: Summary) -> None:
        self.summary = summary


class Stopper(Recorder):
    """Presses Ctrl-C when so many rows are done."""

    def __init__(self, done: int) -> None:
        super().__init__()
        self.done = done

    def update(self, live: LiveStats) -> None:
        if live.done >= self.done and live.phase == "decoding":
            self.done = 10**9
            os.kill(os.getpid(), signal.SIGINT)


def run(config: RunConfig, reporter: Recorder, build: Builder = fake_engine.build_fake) -> Summary:
    return run_job.main(config, reporter, build)


def rows(config: RunConfig) -> list[dict[str, Any]]:
    table = RunFolder.view(f"{config.results.folder}/{config.name}").read()
    return sorted(table.to_pylist(), key=lambda row: (row["problem_id"], row["sample"]))


def said(config: RunConfig, file: str) -> Any:
    return RunFolder.view(f"{config.results.folder}/{config.name}").read_json(file)


def right_tokens(problem: str, sample: int) -> list[int]:
    return expected_tokens(make_request(problem, sample, 30))


def test_a_job_from_data_to_dataset_and_then_nothing_more(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    summary = run(config, recorder)
    found = rows(config)
    assert [(row["problem_id"], row["sample"]) for row in found] == [(p, s) for p in "abc" for s in (0, 1)]
    for row in found:
        assert row["token_ids"] == right_tokens(row["problem_id"], row["sample"])
        assert row["prompt"].startswith(f"<|im_start|>user\n{row['problem_id']}?")
        assert (row["prompt_tokens"], row["completion_tokens"]) == (PROMPT_TOKENS, 30)
        assert (row["finish_reason"], row["error"], row["attempts"]) == ("length", None, 1)
        assert (row["worker"], row["selector"], row["reference"]) == ("w0", "fake", "4")
        assert (row["attended_kv"], row["available_kv"]) == (300, 600)
    assert (summary.rows, summary.errors, summary.resumed) == (6, 0, 0)
    assert summary == recorder.summary
    assert summary.metrics == said(config, "metrics.json")
    assert summary.metrics["rows/total"] == 6
    assert summary.metrics["kv/sparsity"] == 0.5
    assert summary.metrics["speed/tokens_per_s"] > 0
    status = said(config, "status.json")
    assert (status["state"], status["done"], status["all_new_tokens"]) == ("done", 6, 180)
    assert recorder.phases[-1] == "summing up" and {"decoding", "grading"} & set(recorder.phases)

    def refuse(*_: object) -> None:
        raise AssertionError("a finished job needs no Ray")

    monkeypatch.setattr(driver_run, "connected", refuse)
    again = Recorder()
    assert run(config, again).metrics == summary.metrics
    assert again.summary is not None and again.summary.resumed == 6
    assert rows(config) == found


def test_rows_wait_for_a_grader_that_cannot_be_started(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ungraded is not graded: the job fails, and grades them once the grader is there again."""
    module = tmp_path / "lost_grader.py"
    sound = "def grade(completion, answer): return True\n"
    module.write_text(sound)
    monkeypatch.syspath_prepend(tmp_path)
    config.task.grader = "lost_grader:grade"

    class Loser(Recorder):
        """Deletes the grader once the driver has it."""

        def update(self, live: LiveStats) -> None:
            module.write_text("raise OSError('gone')\n")

    with pytest.raises(JobError, match=r"task\.grader=lost_grader:grade: no grading process .*gone"):
        run(config, Loser())
    assert rows(config) == []
    assert said(config, "status.json")["state"] == "failed"
    module.write_text(sound)
    summary = run(config, Recorder())
    assert [(row["problem_id"], row["sample"]) for row in rows(config)] == [
        (p, s) for p in "abc" for s in (0, 1)
    ]
    for row in rows(config):
        assert (row["correct"], row["grade_error"]) == (True, None)
        assert row["token_ids"] == right_tokens(row["problem_id"], row["sample"])
    assert summary.metrics["rows/ungraded"] == 0


def test_what_waits_for_a_slow_grader_is_graded_later_without_workers(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_grader.py").write_text(
        "import pathlib, time\n"
        "def grade(completion, answer):\n"
        "    while not pathlib.Path(__file__).with_name('go').exists():\n"
        "        time.sleep(0.02)\n"
        "    return True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(session, "PATIENCE", 0.0)
    config.task.grader, config.task.grade_timeout = "slow_grader:grade", 600.0

    class Impatient(Recorder):
        """Presses Ctrl-C when nothing but grades is left."""

        def update(self, live: LiveStats) -> None:
            if live.phase == "grading" and live.to_grade == 6:
                live.phase = ""
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"interrupted with 0 of 6 rows, 6 to grade"):
        run(config, Impatient())
    assert rows(config) == []
    status = said(config, "status.json")
    assert (status["state"], status["done"], status["to_grade"]) == ("interrupted", 0, 6)
    assert (status["accuracy"], status["errors"]) == (None, 0), "nothing is wrong yet"

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is to be decoded")

    monkeypatch.setattr(driver_run, "connected", refuse)
    (tmp_path / "go").touch()
    summary = run(config, Recorder())
    assert [row["token_ids"] for row in rows(config)] == [right_tokens(p, s) for p in "abc" for s in (0, 1)]
    assert all(row["correct"] for row in rows(config))
    assert (summary.rows, summary.metrics["accuracy/avg"], summary.metrics["rows/ungraded"]) == (6, 1.0, 0)
    status = said(config, "status.json")
    assert (status["all_new_tokens"], status["to_grade"]) == (180, 0)


def test_ctrl_c_loses_nothing(config: RunConfig) -> None:
    config.engine.max_batch = 1
    with pytest.raises(Interrupted, match=r"interrupted with . of 6 rows"):
        run(config, Stopper(done=1), fake_engine.build_stuck_within_c)
    before = rows(config)
    assert 1 <= len(before) < 6
    assert said(config, "status.json")["state"] == "interrupted"
    recorder = Recorder()
    assert run(config, recorder).resumed == len(before)
    after = rows(config)
    assert [row["token_ids"] for row in after] == [right_tokens(p, s) for p in "abc" for s in (0, 1)]
    assert said(config, "status.json")["all_new_tokens"] <= 180 + 30, "chains were begun again"
    assert [row for row in after if row in before] == before


def test_ctrl_c_while_things_are_read_ends_at_once(config: RunConfig) -> None:
    class Early(Recorder):
        def update(self, live: LiveStats) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run(config, Early())
    assert said(config, "status.json")["state"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "handlers are given back"


def test_a_request_that_kills_workers_costs_its_row_only(letters: MakeConfig) -> None:
    config = letters(ids=["good", "raise"])
    config.samples, config.cluster.max_attempts = 1, 2
    recorder = Recorder()
    summary = run(config, recorder)
    good, bad = rows(config)
    assert (good["finish_reason"], good["token_ids"]) == ("length", right_tokens("good", 0))
    assert (bad["finish_reason"], bad["worker"], bad["attempts"]) == ("error", None, 2)
    assert "IndexError: no page for raise" in bad["error"]
    assert (summary.rows, summary.errors, summary.metrics["rows/errors"]) == (2, 1, 1)
    assert len(recorder.notes) == 2


def test_a_job_that_cannot_go_on_says_so_and_can_be_taken_up_again(
    config: RunConfig,
) -> None:
    config.cluster.max_deaths = 1
    with pytest.raises(JobError, match="no worker could be started: OSError: weights are torn"):
        run(config, Recorder(), fake_engine.build_broken)
    status = said(config, "status.json")
    assert (status["state"], status["error"]) == (
        "failed",
        "no worker could be started: OSError: weights are torn",
    )
    assert run(config, Recorder()).rows == 6


def test_what_the_model_cannot_do_is_refused(config: RunConfig) -> None:
    """By the driver, which has no weights; these workers' engine would take it."""
    config.engine.max_length = 5000
    with pytest.raises(ConfigError, match=r"^engine\.max_length=5000: the model's context is 1024 tokens$"):
        run(config, Recorder())


def test_other_data_under_the_same_name_is_refused(config: RunConfig) -> None:
    with pytest.raises(Interrupted):
        run(config, Stopper(done=0), fake_engine.build_slow)
    data = Path(str(config.task.data))
    data.write_text(data.read_text().replace("b?", "b!"))
    with pytest.raises(ConfigError, match=r"^task.data=.*its 3 problems are not the 3 that .* begun with"):
        run(config, Recorder())
