"""One run, from what is not committed to its end."""

from __future__ import annotations

from seer_ray.analysis.comparison import compare
from seer_ray.cluster.connect import connected
from seer_ray.cluster.crew import Crew
from seer_ray.cluster.fleet import Fleet
from seer_ray.cluster.placement import cluster_nodes, plan_workers
from seer_ray.cluster.worker import Builder
from seer_ray.config.command import command_line
from seer_ray.config.compose import usual_selector
from seer_ray.config.errors import ConfigError, Interrupted
from seer_ray.driver.decode import decode
from seer_ray.driver.session import Session
from seer_ray.driver.stopping import StopRequest
from seer_ray.report.html import FILE as REPORT
from seer_ray.report.html import write_report
from seer_ray.results.folder import join
from seer_ray.status.live import Summary
from seer_ray.status.pulse import Heartbeat
from seer_ray.tracking.mlflow_tracker import catch_up


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
        from seer_ray.driver.requests import make_prompts

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
