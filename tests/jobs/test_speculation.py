"""Jobs that speculate, with real Ray and engine: killed again and again with other drafts each time, and from
the command line to the summary."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster.test_faults import SAME
from jobs.conftest import MakeConfig
from typer.testing import CliRunner

from seer_ray.cli.app import app
from seer_ray.cluster.worker import build_engine
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import RunConfig
from seer_ray.jobs import run as run_job
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter

COLUMNS = [column for column in SAME if column != "attended_kv"]  # what drafts read is counted, too
DRAFTS: tuple[tuple[str, str, str], ...] = (
    ("4", "selector", "quest"),
    ("2", "both", "window"),
    ("auto", "ngram", "dense"),
    ("0", "selector", "dense"),
)
"""One after the other: engine.speculate, engine.drafter, selector.name."""


class Killer(NullReporter):
    """Kills the worker with SIGKILL at so many new tokens, and presses Ctrl-C at twice as many."""

    def __init__(self, pid: Path, tokens: int) -> None:
        self.pid, self.tokens = pid, tokens
        self.killed = self.stopped = False

    def update(self, live: LiveStats) -> None:
        if not self.killed and live.new_tokens >= self.tokens:
            self.killed = True
            os.kill(int(self.pid.read_text()), signal.SIGKILL)
        elif not self.stopped and live.new_tokens >= 2 * self.tokens:
            self.stopped = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_rows_are_those_of_an_undisturbed_dense_run(letters: MakeConfig, tmp_path: Path) -> None:
    def build(config: RunConfig) -> Any:
        (tmp_path / "pid").write_text(str(os.getpid()))
        return build_engine(config)

    def rows(config: RunConfig) -> list[dict[str, Any]]:
        table = RunFolder.view(f"{config.results.folder}/{config.name}").read()
        found = table.select(COLUMNS).to_pylist()
        return sorted(found, key=lambda row: (row["problem_id"], row["sample"]))

    config = letters(tokens=240, name="dense")
    config.engine.block_size, config.engine.max_batch, config.engine.exact = 16, 4, True
    config.sampling.temperature, config.sampling.top_p = 0.6, 0.95
    config.cluster.num_cpus = 0.5
    config.selector.name, config.selector.budget = "dense", 48
    run_job.main(config)
    expected = rows(config)
    assert len(expected) == 6 and not any(row["error"] for row in expected)
    config.name = "drafted"
    for speculate, drafter, selector in DRAFTS[:-1]:
        config.engine.speculate, config.engine.drafter, config.selector.name = speculate, drafter, selector
        killer = Killer(tmp_path / "pid", 120)
        with pytest.raises(Interrupted):
            run_job.main(config, killer, build)
        assert killer.killed
    config.engine.speculate, config.engine.drafter, config.selector.name = DRAFTS[-1]
    summary = run_job.main(config)
    assert rows(config) == expected
    assert summary.metrics["rows/total"] == 6


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_command_line_to_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reasoner with its gates: rows are those of dense decoding, and the summary tells of the drafts."""
    monkeypatch.chdir(tmp_path)
    usual = (
        "run",
        "cluster={workers: 1, num_cpus: 0.5}",
        "task.limit=3",
        "task.generator.steps=8",
        "samples=1",
    )
    found, said = {}, {}
    for name, words in (
        ("dense", ("selector=dense",)),
        ("4", ("engine.speculate=4",)),
        ("auto", ("engine.speculate=auto", "engine.drafter=both")),
    ):
        result = CliRunner().invoke(app, [*usual, "tracking.enabled=false", f"name={name}", *words])
        assert result.exit_code == 0, result.output
        table = RunFolder.view(f"runs/{name}").read().select(["problem_id", "sample", "token_ids", "error"])
        found[name], said[name] = sorted(table.to_pylist(), key=lambda row: row["problem_id"]), result.stdout
    assert found["4"] == found["auto"] == found["dense"] and len(found["dense"]) == 3
    assert all(row["error"] is None for row in found["dense"])
    assert "draft" in said["4"] and "draft" not in said["dense"]
