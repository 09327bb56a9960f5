"""The main job: a dataset through a model, decoded on Ray, graded, into a Parquet dataset and MLflow.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.config.checks import check
from seer_ray.config.compose import run_name, to_yaml
from seer_ray.config.options import RunConfig
from seer_ray.driver.dataset import refuse_other_data
from seer_ray.driver.run import Job
from seer_ray.driver.session import Session
from seer_ray.driver.stopping import StopRequest
from seer_ray.results.folder import RunFolder, join
from seer_ray.status.live import NullReporter, Reporter, Summary
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.grading import check_grader
from seer_ray.tracking.mlflow_tracker import open_tracker


def main(config: RunConfig, reporter: Reporter | None = None, build: Builder = build_engine) -> Summary:
    """Runs the job to its end.

    Args:
        config: All options; gets a name if it has none.
        reporter: Shows how it goes.
        build: What makes an engine in a worker.

    Raises:
        ConfigError: An option, or what it names, is wrong. Nothing is lost.
        JobError: The job cannot go on.
        Interrupted: SIGINT or SIGTERM. What is finished is committed, what is begun is in the progress log.
    """
    check(config)
    config.name = run_name(config)
    check_grader(config.task)
    reporter, stop = reporter or NullReporter(), StopRequest()
    uri = join(config.results.folder, config.name)
    with stop.listening(), RunFolder.open(uri, to_yaml(config)) as folder:
        problems = load_problems(config.task)
        refuse_other_data(folder, problems, config)
        tracker = open_tracker(folder, config.tracking)
        return Job(Session(config, folder, problems, reporter, tracker), stop, build).run()
