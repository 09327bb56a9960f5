"""One session of a sweep: its points decoded in turns on shared workers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace

from seer_ray.analysis.comparison import Comparison
from seer_ray.cluster.connect import connected
from seer_ray.cluster.dispatch import Dispatcher
from seer_ray.cluster.nodes import first_nodes
from seer_ray.cluster.placement import place_workers
from seer_ray.cluster.watch import ClusterLost
from seer_ray.cluster.worker import Builder, Checked
from seer_ray.cluster.worker_pool import WorkerPool
from seer_ray.config.errors import ConfigError, Interrupted, JobError
from seer_ray.config.options import ModelConfig, PlanConfig, RunConfig, SelectorConfig, SweepConfig
from seer_ray.config.paths import with_absolute_paths
from seer_ray.driver import told
from seer_ray.driver.dataset import asked_key, describe, read_problems
from seer_ray.driver.decode import decode
from seer_ray.driver.frame import Frame, params_of
from seer_ray.driver.rendered import clock_of
from seer_ray.driver.session import Session
from seer_ray.driver.sources import (
    Sources,
    look,
    note_sources,
    own_contents,
    reads_gates,
    refuse_other_sources,
    uniform_note,
)
from seer_ray.results.base import CONFIG
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import join
from seer_ray.results.sweep import INDEX, POINTS, SweepFolder, point_uri
from seer_ray.status.live import NullReporter, Reporter, SweepLive, SweepSummary
from seer_ray.sweeps import figures
from seer_ray.sweeps.monitor import Board
from seer_ray.sweeps.points import Point, points_of
from seer_ray.sweeps.race import Race
from seer_ray.sweeps.verdict import verdict
from seer_ray.tasks.grading import GradingPool, SharedPool, check_grader
from seer_ray.tasks.table import ProblemTable
from seer_ray.tracking.mlflow_tracker import catch_up

BATCHES = 4
"""Of requests in a round, over all workers, at most, unless the config says how many problems."""
USUAL_BATCH = 32
"""Rows of a batch, where the engines find out how many fit."""
TURNS = 4
"""Rounds that a point should have, so that its speed can be compared; of a batch at least."""


class Sweep:
    """One session of a sweep.

    Args:
        frame: Of the sweep.
        build: What makes an engine in a worker.
        stack: Closes the points' folders.
    """

    def __init__(
        self, frame: Frame[SweepConfig, SweepFolder], build: Builder, stack: contextlib.ExitStack
    ) -> None:
        self.frame, self.build, self._stack = frame, build, stack
        self.config, self.folder, self.reporter = frame.config, frame.folder, frame.reporter
        self._uri = join(frame.config.results.folder, frame.name)
        self._problems: dict[str, ProblemTable] = {}
        self.board = Board(frame, points_of(frame.config))
        self.sessions: dict[str, Session] = {}

    def run(self) -> SweepSummary:
        """To the end."""
        self.board.live.phase = "reading the points"
        self.board.start()
        with self.frame.working(self.board.write):
            try:
                self._open()
                work = [session for session in self.sessions.values() if not session.concluded]
                work = [s for s in work if not (self._races and self.board.stopped(s.name))]
                for session in work:
                    self.board.reopen(session.name)
                if work:
                    self._start_tracking()
                    for sessions in _groups(work):
                        self._run_group(sessions)
                summary = self._conclude()
            except BaseException as error:
                self._end_all(error)
                raise
            finally:
                self.board.save_all()
            self.frame.end("failed" if self.board.failures else "done")
        # Of points that were done before, and that had no MLflow then.
        before = [session.folder for session in self.sessions.values() if session.queue is None]
        catch_up(*before if work else (self.folder, *before), to=self.config.tracking)
        self.frame.finish(summary)
        return summary

    # -- points --------------------------------------------------------------------------------------

    def _open(self) -> None:
        """The run folder of each point that can be run."""
        from seer_ray.sweeps.plans import Plans

        plans = Plans(self.board.points)
        for slug, other in plans.same.items():
            self.reporter.note(f"{slug} reads the same blocks as {other}: one point")
        self.board.resolved(plans)
        for point in plans.distinct:
            if point.slug in plans.failed:
                self._failed(point.slug, plans.failed[point.slug])
                continue
            try:
                self.sessions[point.slug] = self._session(point)
            except ConfigError as error:
                self._failed(point.slug, str(error))
                continue
            self.board.follow(self.sessions[point.slug])

    def _session(self, point: Point) -> Session:
        config = replace(point.config, name=point.slug)
        config.results = replace(config.results, folder=join(self._uri, POINTS))
        check_grader(config.task)
        folder = self._stack.enter_context(RunFolder.open(point_uri(self._uri, point.slug), config))
        if (key := asked_key(config)) not in self._problems:
            self._problems[key] = read_problems(config)
        reporter = PointReporter(point.slug, self.reporter)
        frame = Frame(config, folder, reporter, self.frame.stop, self.frame.tracker)
        return Session(frame, self._problems[key])

    def _failed(self, slug: str, reason: str) -> None:
        self.reporter.note(f"{slug} failed: {reason}")
        self.board.failed(slug, reason)

    def _end_all(self, error: BaseException) -> None:
        interrupted = isinstance(error, Interrupted)
        for session in self.sessions.values():
            if session.frame.state is None and session.queue is not None:
                session.frame.end(*("interrupted",) if interrupted else ("failed", error))

    # -- decoding ------------------------------------------------------------------------------------

    def _run_group(self, sessions: Sequence[Session]) -> None:
        """Points of one model, whose weights are loaded once."""
        for session in sessions:
            session.monitor.start()
            session.begin()
        try:
            self._decode(sessions)
        except ClusterLost:
            raise
        except (ConfigError, JobError) as error:
            # A disk that is full or a model that is not there: what comes next may be elsewhere.
            for session in sessions:
                if session.frame.state is None:
                    session.frame.end("failed", error)
                    self._failed(session.name, str(error))
        finally:
            self.board.no_workers()
            for session in sessions:
                session.close()

    def _decode(self, sessions: Sequence[Session]) -> None:
        self.board.phase("starting Ray")
        config = sessions[0].config
        reading = self._sources(sessions)
        weights = told.size(reading.model)
        for tracker in (self.frame.tracker, *(session.frame.tracker for session in sessions)):
            tracker.tag(weights)
        with (
            connected(config.cluster, self.reporter.note) as watch,
            self.frame.stop.listening(),
            contextlib.ExitStack() as stack,
        ):
            rows = sum(session.monitor.live.total - session.monitor.live.done for session in sessions)
            nodes = first_nodes(watch, config.cluster, self.board.phase)
            ranks, grows = config.engine.tensor_parallel, not watch.local
            placement = place_workers(nodes, config.cluster, rows, ranks, grows)
            pool = stack.enter_context(
                contextlib.closing(
                    WorkerPool(
                        with_absolute_paths(replace(_neutral(config), model=reading.model)),
                        placement,
                        Checked(self.build, reading.contents),
                        watch,
                    )
                )
            )
            pool.start(rows)
            # While the workers load the model.
            self.board.phase("reading the prompts")
            size = self._prepare(sessions, reading.model, placement.workers, stack)
            for session in sessions:
                note_sources(session.folder, reading.contents | own_contents(session.config))
            dispatcher = Dispatcher([s.queue for s in sessions if s.queue], pool, self.reporter.note)
            race = self._race(size) if self._races else None
            self.board.phase("starting workers")

            def then() -> None:
                for session in sessions:
                    self._settle(session)
                if race is not None:
                    self._stop_points(race)
                self.board.tick(dispatcher)
                self._track()

            if race is not None:
                self._stop_points(race)  # what is there already may say enough
            decode(dispatcher, sessions, self.frame.stop, then)
            for session in sessions:
                self._settle(session)

    def _sources(self, sessions: Sequence[Session]) -> Sources:
        """The files of a group's model, which are those of every point that reads it, also before.

        Raises:
            ConfigError: They are not there, or a point was begun with others.
        """
        model, selectors = sessions[0].config.model, [s.config.selector for s in sessions]
        gated = any(reads_gates(s.config) for s in sessions)
        prefill = any(selector.prefill.asked for selector in selectors)
        alike = [s for s in self.sessions.values() if s.config.model == model]
        sources = look(model, *(s.folder for s in alike), gated=gated, prefill=prefill)
        for session in alike:
            refuse_other_sources(session.folder, sources.contents | own_contents(session.config))
        for note in dict.fromkeys(filter(None, (uniform_note(s.config) for s in sessions))):
            self.reporter.note(note)
        return sources

    def _prepare(
        self, sessions: Sequence[Session], model: ModelConfig, workers: int, stack: contextlib.ExitStack
    ) -> int:
        """The points' requests; problems of a round. ``stack`` closes what renders and grades."""
        # Brings torch and transformers along: a sweep that is done needs neither.
        from seer_ray.driver.requests import Renderer

        renderers: dict[str, Renderer] = {}
        graders: dict[str, SharedPool] = {}
        for session in sessions:
            reading = replace(session.config, model=model)
            task, clock = repr(session.config.task), clock_of(session.folder, self.folder)
            if (key := f"{task} {clock}") not in renderers:
                renderers[key] = stack.enter_context(contextlib.closing(Renderer(reading, clock)))
                graders[key] = SharedPool(stack.enter_context(GradingPool(session.config.task)))
            size = self._round(session.config, workers, len(session.problems))
            session.prepare(reading, renderers[key], clock, size, graders[key].client(session.name))
        return size

    @property
    def _races(self) -> bool:
        return self.config.sweep.racing.enabled

    def _race(self, size: int) -> Race:
        before = [slug for slug in self.sessions if self.board.stopped(slug)]
        points, sessions = self.board.points, list(self.sessions.values())
        return Race(self.config.sweep.racing, points, sessions, size, before)

    def _stop_points(self, race: Race) -> None:
        for slug, decision in race.run().items():
            why = decision.why if decision else "nothing is left to compare with it"
            self.reporter.note(f"{slug} is sampled no more: {why}")
            self.board.stop(slug, why, decision)

    def _round(self, config: RunConfig, workers: int, problems: int) -> int:
        """Problems of a round."""
        sweep = self.config.sweep
        wanted = sweep.round or (sweep.racing.every if self._races else None)
        batch = -(-(config.engine.max_batch or USUAL_BATCH) * workers // config.samples)
        return wanted or max(batch, min(BATCHES * batch, -(-problems // TURNS)))

    def _settle(self, session: Session) -> None:
        """A point whose last row is committed is done, and one that no worker can have has failed."""
        queue = session.queue
        if session.frame.state is not None or queue is None:
            return
        if queue.failure is not None:
            session.save()
            session.frame.end("failed", queue.failure)
            self._failed(session.name, queue.failure)
        elif not queue.unfinished and not session.pending:
            session.conclude()
            if (reason := session.failure) is not None:
                session.frame.end("failed", reason)
                self._failed(session.name, reason)
                return
            session.frame.end("done" if session.complete else "stopped early")
            self.board.settled(session.name)

    # -- the whole -----------------------------------------------------------------------------------

    def _start_tracking(self) -> None:
        varying = {name for point in self.board.points for name in point.changes}
        params = {name: value for name, value in params_of(self.config).items() if name not in varying}
        params["sweep.points"] = " ".join(point.slug for point in self.board.points)
        some = next(iter(self.sessions.values()))
        self.frame.begin(describe(some.problems, some.config), params)

    def _track(self) -> None:
        if self.board.due(self.config.tracking.interval):
            self.frame.tracker.log(self.board.metrics(), step=self.board.live.done)

    def _conclude(self) -> SweepSummary:
        """What the points come to, together."""
        self.board.phase("summing up")
        found = verdict(self._uri, self.folder, self.config, self.reporter.note)
        self.board.save_all()
        if self.frame.begun:
            self.frame.tracker.log(self.board.metrics(), step=self.board.live.done)
            if found.comparison is not None:
                self._tell(found.comparison)
            for name in (CONFIG, INDEX, *found.artifacts):
                self.frame.tracker.artifact(name)
        points = []
        for entry in self.folder.points:
            session = self.sessions.get(entry["slug"])
            points.append({**entry, "metrics": session.metrics() if session else {}})
        return SweepSummary(
            **self.frame.facts(),
            points=points,
            failed=self.board.failures,
            saved=self.board.saved(),
            recommendation=found.recommendation,
            report=found.report,
            next_commands=found.next_commands,
        )

    def _tell(self, comparison: Comparison) -> None:
        tracker = self.frame.tracker
        tracker.log(figures.figures(comparison), step=self.board.live.done)
        for budget, accuracies in figures.curves(comparison).items():
            tracker.log(accuracies, step=budget)
        tracker.tag({told.NOTE: told.note(self.config, figures.lines(comparison))})


class PointReporter(NullReporter):
    """Passes on what a person should know of one point."""

    def __init__(self, slug: str, reporter: Reporter[SweepLive, SweepSummary]) -> None:
        self._slug, self._reporter = slug, reporter

    def note(self, message: str) -> None:
        self._reporter.note(f"{self._slug}: {message}")


def _groups(sessions: Sequence[Session]) -> list[list[Session]]:
    """Those of one model, on as many ranks, together."""
    groups: dict[str, list[Session]] = {}
    for session in sessions:
        key = repr((asdict(session.config.model), session.config.engine.tensor_parallel))
        groups.setdefault(key, []).append(session)
    return list(groups.values())


def _neutral(config: RunConfig) -> RunConfig:
    """What a worker is built with before it is told what to decode: a selection that every model can have."""
    return replace(config, selector=SelectorConfig(), plan=PlanConfig())
