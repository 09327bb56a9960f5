"""The main job: a dataset through a model, decoded on Ray, graded, into a Parquet dataset and MLflow.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

from seer_ray.analysis.report import FILE as REPORT
from seer_ray.analysis.standing import compare
from seer_ray.checks import check
from seer_ray.cluster import Interrupted
from seer_ray.cluster.connect import cluster_nodes, connected, plan_workers
from seer_ray.cluster.crew import Crew
from seer_ray.cluster.fleet import Fleet
from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.command import command_line
from seer_ray.compose import run_name, to_yaml, usual_selector
from seer_ray.config import ConfigError, RunConfig
from seer_ray.jobs.dataset import refuse_other_data
from seer_ray.jobs.decode import decode
from seer_ray.jobs.live import NullReporter, Reporter, Summary
from seer_ray.jobs.monitor import Heartbeat
from seer_ray.jobs.session import Session
from seer_ray.jobs.stopping import StopRequest
from seer_ray.jobs.verdict import write_report
from seer_ray.results.folder import RunFolder, join
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.grading import check_grader
from seer_ray.tracking.mlflow_tracker import catch_up, open_tracker


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


class Job:
    """One session of a run, alone."""

    def __init__(self, session: Session, stop: StopRequest, build: Builder) -> None:
        self.session, self.stop, self.build = session, stop, build

    def run(self) -> Summary:
        """To the end."""
        session = self.session
        if session.concluded:
            catch_up(session.folder)
        else:
            self._work()
        summary = summary_of(session)
        session.reporter.finish(summary)
        return summary

    def _work(self) -> None:
        session = self.session
        session.begin()
        heart = Heartbeat(session.monitor.write)
        heart.start()
        try:
            if not session.complete:
                self._decode()
            session.conclude()
            if session.config.results.report:
                self._report()
        except Interrupted:
            session.end("interrupted")
            raise
        except BaseException as error:
            session.end("failed", error)
            raise
        finally:
            heart.stop()
        session.end("done")

    def _report(self) -> None:
        session, config = self.session, self.session.config
        session.monitor.phase("writing the report")
        try:
            comparison = compare([join(config.results.folder, session.name)])
        except ConfigError as error:
            session.reporter.note(f"no report: {error}")
            return
        for name in write_report(comparison, session.name, session.folder.store, session.reporter.note):
            session.tracker.artifact(name)

    def _decode(self) -> None:
        """All that is not committed, on Ray."""
        # Brings torch and transformers along: a run that is done needs neither.
        from seer_ray.jobs.requests import make_prompts

        session, config = self.session, self.session.config
        session.monitor.phase("reading the prompts")
        lane = session.prepare(*make_prompts(config, session.problems))
        try:
            session.monitor.phase("starting Ray")
            with connected(config.cluster), self.stop.listening():
                plan = plan_workers(
                    cluster_nodes(), config.cluster, lane.unfinished, config.engine.tensor_parallel
                )
                fleet = Fleet(config, plan, self.build)
                session.monitor.phase("starting workers")
                try:
                    decode(Crew([lane], fleet, session.reporter.note), [session], self.stop)
                finally:
                    fleet.close()
        finally:
            session.close()


def summary_of(session: Session) -> Summary:
    """What a run came to."""
    config, live, folder = session.config, session.monitor.live, session.folder.uri
    other = "dense" if config.selector.name != "dense" else usual_selector(config.model.gates)
    return Summary(
        name=session.name,
        folder=folder,
        metrics=session.metrics(),
        rows=live.done,
        errors=live.errors,
        elapsed_s=live.elapsed_s,
        tracking_uri=getattr(session.tracker, "uri", None),
        tracking_run_id=getattr(session.tracker, "run_id", None),
        resumed=live.resumed,
        report=session.folder.store.locate(REPORT) if REPORT in session.folder.store.list() else None,
        next_commands=[
            f"""python -c "import pandas; print(pandas.read_parquet('{folder}/completions'))\"""",
            command_line(config, f"selector={other}"),
        ],
    )
