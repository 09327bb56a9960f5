"""Rows of a run, or of a sweep's points, graded by another grader: the same rows, what they come to, and the
report, made again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig, TaskConfig
from seer_ray.driver.again import regrade
from seer_ray.driver.frame import framed
from seer_ray.driver.monitor import COUNTERS
from seer_ray.driver.run import finish, summary_of
from seer_ray.driver.session import Session
from seer_ray.jobs import sweep
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import join
from seer_ray.results.sweep import SweepFolder, point_uri
from seer_ray.status.live import JobSummary, LiveStats, Reporter, Summary
from seer_ray.status.pulse import STATUS
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.grading import check_grader

OPTIONS = ("task.grader", "task.grade_timeout")
"""That say how; by their last words too."""
Graded = tuple[RunConfig, TaskConfig]
"""A run, and its task with another grader."""


def load(run: str, overrides: Sequence[str]) -> tuple[RunConfig, list[Graded]]:
    """The options of a run or sweep that is there, and those of each of its runs with the task that it gets.

    Raises:
        ConfigError: none is there, it is a sweep that is not done, or what is wrong with which option.
    """
    from seer_ray.config.compose import compose
    from seer_ray.jobs.load import RESUME, load_job

    named = {name.partition(".")[2]: name for name in OPTIONS}
    given = [word.partition("=") for word in overrides]
    changes = {named.get(name, name): value for name, _, value in given}
    how = [f"{name}={value}" for name, value in changes.items() if name in OPTIONS]
    if not how:
        raise ConfigError(f"{run}: no grader is named; give one, such as grader=exact")
    others = [f"{name}={value}" for name, value in changes.items() if name not in OPTIONS]
    config = load_job(None, [RESUME, run, *others])
    places = [run]
    if isinstance(config, SweepConfig):
        places = _points(join(config.results.folder, str(config.name)))
    elif type(config) is not RunConfig:
        raise ConfigError(f"{run}: neither a run nor a sweep")
    runs = []
    for place in places:
        one = config if type(config) is RunConfig else load_job(None, [RESUME, place, *others])
        assert type(one) is RunConfig
        one.results.retry_errors = []
        task = compose(how, RunConfig, one).task
        check_grader(task)
        runs.append((one, task))
    return config, runs


def _points(sweep: str) -> list[str]:
    """The run folders of a sweep that is done. Which points racing has stopped, and when, is owed to the
    grades that there were: such a sweep has no other grader.

    Raises:
        ConfigError: not all of its points are done.
    """
    points = SweepFolder.view(sweep).points
    for point in points:
        if point["state"] != "done":
            remedy = f"grade its points one by one: {sweep}/points/POINT"
            if point["state"] != "stopped early":
                remedy = f"seer-ray resume {sweep}, or {remedy}"
            raise ConfigError(f"{sweep}: {point['slug']} is not done but {point['state']}; {remedy}")
    return [point_uri(sweep, point["slug"]) for point in points]


def main(config: RunConfig, runs: Sequence[Graded], reporter: Reporter[Any, Any] | None = None) -> JobSummary:
    """Grades a run, or the points of a sweep one after the other and then what they come to, together.

    Args:
        config: Of the whole, as ``load`` gives it.
        runs: Of it.
        reporter: Shows how it goes.

    Raises:
        As ``grade``.
    """
    if not isinstance(config, SweepConfig):
        return grade(*runs[0], reporter)
    for one, task in runs:
        grade(one, task)
        if reporter is not None:
            reporter.note(f"{one.name} is graded")
    return sweep.main(config, reporter)


def grade(
    config: RunConfig, task: TaskConfig, reporter: Reporter[LiveStats, Summary] | None = None
) -> Summary:
    """Grades the rows that there are. A run that is not done is gone on with by its own command, and its
    other rows get the same grader.

    Args:
        config: All options of the run.
        task: Of it, but for its grader.
        reporter: Shows how it goes.

    Raises:
        ConfigError: An option, or what it names, is wrong; or there are no rows. Nothing is lost.
        JobError: The grader cannot be started.
        Interrupted: A signal to stop. The same call goes on.
    """
    with framed(config, RunFolder, reporter) as frame:
        frame.reporter.start(LiveStats(phase="reading the problems"))
        problems = load_problems(config.task)
        if not frame.folder.committed():
            raise ConfigError(f"{frame.folder.uri}: has no rows yet; give the run's command first")
        before = frame.folder.read_json(STATUS) or {}
        # The first heartbeat comes before the session that goes on with these.
        frame.status.say = lambda: {name: before[name] for name in COUNTERS if name in before}
        with frame.working():
            frame.reporter.start(LiveStats(phase="grading"))
            regrade(frame.folder, task)
            session = Session(frame, problems)
            session.begin()
            if session.complete:
                finish(session)
            else:
                frame.end("interrupted")
        summary = summary_of(session)
        frame.finish(summary)
        return summary
