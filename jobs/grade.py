"""A run's rows graded by another grader: the same rows, what they come to, and the report, made again."""

from __future__ import annotations

from collections.abc import Sequence

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, TaskConfig
from seer_ray.driver.again import regrade
from seer_ray.driver.frame import framed
from seer_ray.driver.run import finish, summary_of
from seer_ray.driver.session import Session
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, Reporter, Summary
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.grading import check_grader

OPTIONS = ("task.grader", "task.grade_timeout")
"""That say how; by their last words too."""


def load(run: str, overrides: Sequence[str]) -> tuple[RunConfig, TaskConfig]:
    """The options of a run that is there, and its task with another grader.

    Raises:
        ConfigError: no run is there, or what is wrong with which option.
    """
    from seer_ray.config.compose import compose
    from seer_ray.jobs.load import RESUME, load_job

    named = {name.partition(".")[2]: name for name in OPTIONS}
    given = [word.partition("=") for word in overrides]
    changes = {named.get(name, name): value for name, _, value in given}
    how = [f"{name}={value}" for name, value in changes.items() if name in OPTIONS]
    if not how:
        raise ConfigError(f"{run}: no grader is named; give one, such as grader=exact")
    config = load_job(
        None, [RESUME, run, *(f"{name}={value}" for name, value in changes.items() if name not in OPTIONS)]
    )
    if type(config) is not RunConfig:
        raise ConfigError(f"{run}: not a run; of a sweep, grade its points one by one: {run}/points/POINT")
    config.results.retry_errors = []
    task = compose(how, RunConfig, config).task
    check_grader(task)
    return config, task


def main(
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
