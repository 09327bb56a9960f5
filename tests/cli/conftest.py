"""The command line with a stand-in for the job, in a folder of its own."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.config.compose import compose, run_name
from seer_ray.config.options import RunConfig
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter, Reporter, Summary

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path, monkeypatch) -> Invoke:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *args: CliRunner().invoke(app, list(args), catch_exceptions=False)


class Job:
    """Stands for ``seer_ray.jobs.run``: notes what it is asked for, and does what the test says."""

    def __init__(self) -> None:
        self.config: RunConfig | None = None
        self.closed = False
        self.then: Callable[[], None] = lambda: None
        self.metrics: dict[str, float] = {"accuracy/avg": 0.5, "accuracy/low": 0.25, "accuracy/high": 0.75}
        self.failure: str | None = None

    def main(self, config: RunConfig, reporter: Reporter | None) -> Summary:
        self.config, reporter = config, reporter or NullReporter()
        reporter.start(LiveStats(total=4, phase="decoding"))
        print("somebody prints")
        reporter.note("a note")
        self.then()
        assert config.name
        summary = Summary(
            config.name,
            f"{config.results.folder}/{config.name}",
            metrics=self.metrics,
            rows=4,
            errors=1,
            elapsed_s=75.0,
            failure=self.failure,
        )
        reporter.finish(summary)
        return summary


@pytest.fixture
def job(monkeypatch) -> Job:
    stand_in = Job()
    module = types.ModuleType("seer_ray.jobs.run")
    module.main = stand_in.main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return stand_in


def make_run(*overrides: str, **files: object) -> str:
    """A run folder under runs/ with these JSON files. Returns the run's name."""
    config = compose(overrides)
    config.name = run_name(config)
    with RunFolder.open(f"{config.results.folder}/{config.name}", config) as folder:
        for name, value in files.items():
            folder.write_json(f"{name}.json", value)
    return config.name


def one_error(result: Result) -> str:
    """The error of a command line that was refused: one line on stderr, exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr.removeprefix("error: ").rstrip("\n")
