"""The main job: a dataset through a model, decoded on Ray, graded, into a Parquet dataset and MLflow.

Running it again goes on where it stopped; running it when it is done does nothing.
"""

from __future__ import annotations

import time
from typing import Any

from seer_ray.analysis.statistics import summarise
from seer_ray.cluster import Interrupted
from seer_ray.cluster.connect import cluster_nodes, connected, plan_workers
from seer_ray.cluster.coordinator import Coordinator
from seer_ray.cluster.crew import Crew
from seer_ray.cluster.fleet import Fleet
from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.command import command_line
from seer_ray.compose import run_name, to_yaml
from seer_ray.config import RunConfig, check, options
from seer_ray.jobs.dataset import describe, refuse_other_data
from seer_ray.jobs.live import NullReporter, Reporter, Summary
from seer_ray.jobs.monitor import COLUMNS, Monitor
from seer_ray.jobs.rows import RowWriter
from seer_ray.jobs.stopping import StopRequest
from seer_ray.results.folder import RunFolder, join
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.grading import check_grader
from seer_ray.tasks.problem import Problem
from seer_ray.tracking.mlflow_tracker import catch_up, open_tracker
from seer_ray.tracking.tracker import Tracker

POLL = 0.2
"""Seconds that the loop waits for workers at most."""
METRICS = "metrics.json"


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
        job = Job(config, folder, problems, reporter, stop, build)
        return job.run()


class Job:
    """One session of a run."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        problems: list[Problem],
        reporter: Reporter,
        stop: StopRequest,
        build: Builder,
    ) -> None:
        self.config, self.folder, self.problems = config, folder, problems
        self.reporter, self.stop, self.build = reporter, stop, build
        self.monitor = Monitor(folder, reporter, len(problems) * config.samples)
        self.monitor.add(folder.read(COLUMNS).to_pylist())
        self.monitor.live.resumed = self.monitor.live.done

    def run(self) -> Summary:
        """To the end."""
        if self.monitor.live.done == self.monitor.live.total and self.folder.read_json(METRICS):
            catch_up(self.folder)
            summary = self._summary(open_tracker(self.folder, self.config.tracking))
            self.reporter.finish(summary)
            return summary
        tracker = open_tracker(self.folder, self.config.tracking)
        params = {name: value for name, value, _ in options(self.config)}
        tracker.start(str(self.config.name), params, describe(self.problems, self.config))
        try:
            self.monitor.start()
            if self.monitor.live.done < self.monitor.live.total:
                self._decode(tracker)
            self._conclude(tracker)
        except Interrupted:
            self.monitor.end("interrupted")
            tracker.finish("KILLED")
            raise
        except BaseException as error:
            self.monitor.end("failed", " ".join(str(error).split()) or type(error).__name__)
            tracker.finish("FAILED")
            raise
        self.monitor.end("done")
        tracker.finish()
        summary = self._summary(tracker)
        self.reporter.finish(summary)
        return summary

    def _decode(self, tracker: Tracker) -> None:
        """All that is not committed, on Ray."""
        from seer_ray.jobs.requests import make_prompts, make_requests

        config, monitor = self.config, self.monitor
        monitor.phase("reading the prompts")
        prompts, tokenizer = make_prompts(config, self.problems)
        log = self.folder.progress()
        requests, attempts = make_requests(config, prompts, tokenizer, self.folder.committed(), log)
        monitor.phase("starting Ray")
        with connected(config.cluster), self.stop.listening():
            plan = plan_workers(cluster_nodes(), config.cluster, len(requests))
            fleet = Fleet(config, plan, self.build)
            crew = Crew(
                Coordinator(requests, config.cluster.max_attempts, attempts), fleet, self.reporter.note
            )
            rows = RowWriter(
                self.folder,
                log,
                config,
                prompts,
                lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True),
                self.reporter.note,
            )
            monitor.phase("starting workers")
            try:
                self._loop(crew, rows, tracker)
            finally:
                fleet.close()
                rows.close()

    def _loop(self, crew: Crew, rows: RowWriter, tracker: Tracker) -> None:
        coordinator, live, tracked = crew.coordinator, self.monitor.live, 0.0
        self.stop.patient = True
        try:
            while coordinator.unfinished and not self.stop.asked:
                for outcome in crew.poll(POLL):
                    rows.add(outcome, crew.plan or "")
                rows.keep(coordinator.changes())
                self.monitor.add(rows.graded())
                rows.write()
                live.workers_ready, live.workers_starting = crew.fleet.ready, crew.fleet.starting
                live.workers_wanted = crew.fleet.size
                if live.workers_ready:
                    live.phase = "decoding"
                self.monitor.tick(coordinator)
                if time.monotonic() - tracked >= self.config.tracking.interval:
                    tracked = time.monotonic()
                    engines = {f"engine/{name}": value for name, value in crew.stats().items()}
                    tracker.log(self.monitor.metrics() | engines, step=live.done)
        finally:
            # Whatever ended it: no finished row and no known token is lost.
            self.monitor.add(rows.finish())
            self.monitor.tick(coordinator, last=True)
            self.stop.patient = False
        if self.stop.asked:
            raise Interrupted(f"interrupted with {live.done} of {live.total} rows")

    def _conclude(self, tracker: Tracker) -> None:
        """What the rows come to."""
        self.monitor.phase("summing up")
        self.folder.compact()
        metrics: dict[str, Any] = summarise(self.folder.read())
        seconds, tokens = self.monitor.decoding()
        metrics["kv/mean_attended"] = self.monitor.totals.mean_attended
        metrics["time/decoding_s"] = seconds
        if seconds > 0:
            metrics["speed/tokens_per_s"] = tokens / seconds
        metrics = {name: value for name, value in metrics.items() if value is not None}
        self.folder.write_json(METRICS, metrics)
        tracker.log(metrics, step=self.monitor.live.done)
        for name in ("config.yaml", METRICS):
            tracker.artifact(name)

    def _summary(self, tracker: Tracker) -> Summary:
        live, folder = self.monitor.live, self.folder.uri
        other = "dense" if self.config.selector.name != "dense" else "quest"
        return Summary(
            name=str(self.config.name),
            folder=folder,
            metrics=self.folder.read_json(METRICS) or {},
            rows=live.done,
            errors=live.errors,
            elapsed_s=live.elapsed_s,
            tracking_uri=getattr(tracker, "uri", None),
            tracking_run_id=getattr(tracker, "run_id", None),
            resumed=live.resumed,
            next_commands=[
                f"""python -c "import pandas; print(pandas.read_parquet('{folder}/completions'))\"""",
                command_line(self.config, f"selector={other}"),
            ],
        )
