"""What a job leaves beside its rows: recorded selections and a report. Real Ray, an engine of no model."""

from __future__ import annotations

from pathlib import Path

import fake_engine
import pytest
from fake_engine import make_request, trace_at
from jobs.conftest import MakeConfig

from seer_ray.config.errors import Interrupted
from seer_ray.config.options import RunConfig
from seer_ray.jobs import run as run_job
from seer_ray.report.written import FILE as REPORT
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter

TOKENS = 30


pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def config(letters: MakeConfig) -> RunConfig:
    config = letters(tokens=TOKENS)
    config.engine.max_batch = 2
    return config


class Stopper(NullReporter):
    """Stops the job when so many tokens are made."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def update(self, live: LiveStats) -> None:
        if live.new_tokens >= self.tokens:
            raise Interrupted("by the test")


def test_recorded_chains_survive_being_stopped_in_their_middle(config: RunConfig) -> None:
    config.engine.record_selection, config.engine.record_requests = 2, ["c/1"]
    for tokens in (TOKENS // 2, TOKENS * 2):
        with pytest.raises(Interrupted):
            run_job.main(config, Stopper(tokens), fake_engine.build_slow)
    run_job.main(config, build=fake_engine.build_fake)
    folder = RunFolder.view(f"{config.results.folder}/job")
    assert sorted(folder.recorded()) == [("a", 0), ("b", 0), ("c", 1)]
    rows = {(row["problem_id"], row["sample"]): row for row in folder.read().to_pylist()}
    assert len(rows) == 6
    for key in folder.recorded():
        found, row = folder.read_selection(key), rows[key]
        request = make_request(*key, TOKENS, prompt=(0,) * row["prompt_tokens"])
        assert list(found.trace.entries) == [trace_at(request, position) for position in range(TOKENS)]
        assert len(found.tokens) == row["completion_tokens"] == TOKENS
        assert "".join(found.prompt).endswith(f"user\n{key[0]}?\nassistant\n"), "special tokens are no text"


def test_nothing_is_recorded_by_default(config: RunConfig) -> None:
    run_job.main(config, build=fake_engine.build_fake)
    folder = RunFolder.view(f"{config.results.folder}/job")
    assert folder.recorded() == [] and not folder.store.list("selections")


def test_recording_changes_no_row_so_it_may_begin_with_a_resumption(config: RunConfig) -> None:
    with pytest.raises(Interrupted):
        run_job.main(config, Stopper(TOKENS // 2), fake_engine.build_slow)
    config.engine.record_selection = 3
    run_job.main(config, build=fake_engine.build_fake)
    folder = RunFolder.view(f"{config.results.folder}/job")
    assert ("c", 0) in folder.recorded()
    for key in folder.recorded():
        trace = folder.read_selection(key).trace
        assert len(trace.entries) == TOKENS, "what was made before has no entry, and its place is kept"
    assert min(folder.read_selection(key).trace.recorded for key in folder.recorded()) < TOKENS


@pytest.mark.long
def test_a_report_is_written_at_the_end_and_costs_no_job(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.results.report, config.samples = True, 1
    summary = run_job.main(config, build=fake_engine.build_fake)
    folder = Path(config.results.folder, "job")
    assert summary.report == str(folder / REPORT)
    assert "3 problems" in (folder / REPORT).read_text()
    assert sorted(path.suffix for path in (folder / "plots").iterdir()) == [".png", ".svg"]
    assert run_job.main(config).report == summary.report, "a finished job still says where it is"

    class Noter(NullReporter):
        notes: list[str] = []  # noqa: RUF012

        def note(self, message: str) -> None:
            self.notes.append(message)

    def fail(*_: object) -> None:
        raise RuntimeError("out of ink")

    monkeypatch.setattr("seer_ray.report.html.draw", fail)
    config.name = "other"
    assert run_job.main(config, Noter(), fake_engine.build_fake).report is None
    assert Noter.notes == ["no report (RuntimeError: out of ink); what it would show is all there"]
