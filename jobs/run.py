"""The main job: a dataset through a model, decoded on Ray, graded, into a Parquet dataset and MLflow.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.config.options import RunConfig
from seer_ray.driver.dataset import read_problems
from seer_ray.driver.frame import framed
from seer_ray.driver.run import summary_of, work
from seer_ray.driver.session import Session
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, Reporter, Summary
from seer_ray.tasks.grading import check_grader
from seer_ray.tracking.mlflow_tracker import catch_up

if TYPE_CHECKING:
    from seer_ray.sweeps.estimate import Estimate


def main(
    config: RunConfig, reporter: Reporter[LiveStats, Summary] | None = None, build: Builder = build_engine
) -> Summary:
    """Runs the job to its end.

    Args:
        config: All options; gets a name if it has none.
        reporter: Shows how it goes.
        build: What makes an engine in a worker.

    Raises:
        ConfigError: An option, or what it names, is wrong. Nothing is lost.
        JobError: The job cannot go on.
        Interrupted: A signal to stop. What is finished is committed, what is begun is in the progress log.
    """
    check_grader(config.task)
    with framed(config, RunFolder, reporter) as frame:
        frame.reporter.start(LiveStats(phase="reading the problems"))
        session = Session(frame, read_problems(config))
        if session.concluded:
            catch_up(frame.folder, to=config.tracking)
        else:
            work(session, build)
        summary = summary_of(session)
        frame.finish(summary)
        return summary


def plan(config: RunConfig) -> Estimate:
    """What the run would cost; begins nothing."""
    # Brings transformers along, which a job that is done does not need.
    from seer_ray.sweeps.estimate import estimate

    return estimate(config)
