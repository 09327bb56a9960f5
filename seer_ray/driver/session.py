"""One run folder that is being worked on: what is to be decoded, what came of it, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from seer_ray.analysis import errors
from seer_ray.analysis.metrics import COLUMNS, ENGINES, summarise, summary_lines, tracked
from seer_ray.analysis.rows import Totals
from seer_ray.cluster.assignments import Outcome
from seer_ray.cluster.engine_thread import DecodeOptions
from seer_ray.cluster.run_queue import RunQueue
from seer_ray.config.errors import JobError, NotWritten
from seer_ray.config.options import RunConfig
from seer_ray.config.paths import with_absolute_paths
from seer_ray.driver import sequential, told
from seer_ray.driver.again import graded_by, retry_errors
from seer_ray.driver.dataset import describe, refuse_other_data, refuse_unknown_requests
from seer_ray.driver.frame import Frame
from seer_ray.driver.monitor import Monitor
from seer_ray.driver.rendered import Prompts
from seer_ray.driver.rows import RowWriter
from seer_ray.driver.sequential import SequentialSamples
from seer_ray.engine.request import Completion, Request
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.results.base import CONFIG, METRICS
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.grading import Grader
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.table import Survey
from seer_ray.tasks.thinking import ReasoningParser
from seer_ray.tracking.completions import sample_of

if TYPE_CHECKING:
    from seer_ray.driver.requests import Renderer

PATIENCE = 3.0
"""Seconds that a job that ends early waits for grades; what gets none in them gets it when it is resumed."""


class Session:
    """A run from where its folder stands to its end, or as far as it comes.

    Args:
        frame: Of the run.
        problems: All of them, in order.

    Raises:
        ConfigError: The folder was begun with other problems, or a chain that is named is none of theirs.
    """

    def __init__(self, frame: Frame[RunConfig, RunFolder], problems: Sequence[Problem]) -> None:
        refuse_unknown_requests(problems, frame.config)
        refuse_other_data(frame.folder, problems, frame.config)
        self.frame, self.problems = frame, problems
        self.config, self.folder = frame.config, frame.folder
        self._sequential: SequentialSamples | None = None
        self._first: int | None = None
        if frame.config.sequential.enabled:
            self._sequential = SequentialSamples(frame.config.sequential, frame.config.samples)
            self._first = frame.config.sequential.every
        self.survey = Survey.of(problems)
        total = self.survey.rows(frame.config.samples)
        self.monitor = Monitor(frame.folder, frame.reporter, total, self._first, frame.clock)
        self.queue: RunQueue | None = None
        self._prompts: Prompts | None = None
        columns = Totals.COLUMNS if self._sequential is None else (*Totals.COLUMNS, *sequential.COLUMNS)
        retry_errors(frame.folder, frame.config, frame.reporter.note)
        for batch in frame.folder.stream(list(dict.fromkeys(columns))):
            self.monitor.add(batch)
            if self._sequential is not None:
                self._decide(batch.to_pylist())
        self.monitor.live.resumed = self.monitor.live.done
        self._late = frame.folder.ungraded()
        self._late.tidy()
        self.monitor.live.to_grade = len(self._late)
        frame.status.say = self.monitor.said
        self._rows: RowWriter | None = None
        self._tracked = 0.0

    @property
    def name(self) -> str:
        return self.frame.name

    @property
    def complete(self) -> bool:
        """Every row is there."""
        return self.monitor.live.done == self.monitor.live.total

    @property
    def concluded(self) -> bool:
        """Every row is there, and what they come to."""
        return self.complete and bool(self.metrics())

    @property
    def failure(self) -> str | None:
        """Why a run that is complete has failed: too many of its rows are errors. None: it has not."""
        live, most = self.monitor.live, self.config.results.max_error_rate
        few = live.errors < live.total and live.errors <= most * live.total
        if not self.complete or few:
            return None
        kind = self.error_kinds()[0]
        if live.errors == live.total:
            also = "; the others are errors too" if kind.rows < live.total else ""
            which = f"{kind.rows} of {live.total} rows{also}" if also else f"all {kind.rows} rows"
        else:
            which = (
                f"{live.errors} of {live.total} rows are errors, more than "
                f"results.max_error_rate={most:g} allows"
            )
        return f"{kind.reason} ({which}); mend it and give the run another name"

    def error_kinds(self) -> list[errors.ErrorKind]:
        """What the rows are that are errors."""
        return errors.error_kinds(self.folder.stream(errors.COLUMNS))

    @property
    def pending(self) -> int:
        """Rows that are here and not committed yet."""
        return self._rows.pending if self._rows is not None else 0

    @property
    def unsaved(self) -> int:
        """Those of them that are on no disk."""
        return self._rows.unsaved if self._rows is not None else 0

    @property
    def missing(self) -> int:
        """Rows that are to be decoded."""
        live = self.monitor.live
        return max(0, live.total - live.done - live.to_grade)

    @property
    def grading(self) -> bool:
        """Rows wait for their grades."""
        return self.frame.state is None and self.monitor.live.to_grade > 0

    def metrics(self) -> dict[str, Any]:
        """Final ones, of a run that has come to its end."""
        return self.folder.metrics() or {}

    def begin(self) -> None:
        """Something is going to happen: tells the tracker."""
        self.frame.begin(describe(self.problems, self.config))

    def prepare(
        self,
        reading: RunConfig,
        renderer: Renderer,
        clock: datetime,
        round_problems: int | None = None,
        pool: Grader | None = None,
    ) -> RunQueue:
        """What is not committed, as a queue for workers. Prompts are rendered when they are near.

        Args:
            reading: The options with the model as it is to be read.
            renderer: Makes prompts of the problems; whoever made it closes it.
            clock: That they are rendered by.
            round_problems: Problems of a round; None: one round.
            pool: Grades; None: a pool of its own.

        Raises:
            ConfigError: No such model or grader, or the folder was begun with other prompts.
        """
        # Brings torch and transformers along: a run that is done needs neither.
        from seer_ray.driver.requests import RequestMaker
        from seer_ray.driver.rounds import rounds_of

        config, log, done = self.config, self.folder.progress(), self.folder.committed().copy()
        for key in self._late:
            done.add(key)
        renderer.check(self.problems)
        begun = bool(done or log.chains)
        self._prompts = prompts = Prompts(self.folder, self.problems, renderer, clock, begun)
        parser = ReasoningParser(renderer.tokenizer, config.task.thinking_marks)
        thinking = ThinkingRules(config, parser, renderer.tokenizer)
        task = graded_by(self.folder, config.task)
        self._rows = RowWriter(
            self.folder,
            log,
            self._late,
            replace(config, task=task),
            prompts,
            parser,
            thinking,
            self.frame.reporter.note,
            pool if task == config.task else None,
            self.frame.clock,
        )
        maker = RequestMaker(reading, renderer, thinking)
        size = round_problems or max(1, len(self.problems))

        def request(place: int, problem: Problem, sample: int, rows: int) -> Request | None:
            """One that a worker is to have now."""
            prompt = prompts.open(place, problem, rows)
            made = maker.make(place, prompt, sample)
            if prompt.error is not None:
                self._refused(made, prompt.error)
                return None
            return made if self._sequential is None else self._wanted(made, prompts)

        rounds = rounds_of(self.problems, config.samples, size, done, log.chains, request, renderer.expect)
        renderer.plan(sum(map(len, rounds)) // config.samples)
        marks = config.task.thinking_marks
        sent = with_absolute_paths(config)  # workers stand elsewhere
        self.queue = RunQueue(
            self.name,
            rounds,
            config.cluster.max_attempts,
            log.chains,
            DecodeOptions(sent.engine, sent.selector, sent.plan, None if marks is None else tuple(marks)),
            config.cluster.max_deaths,
            worked=bool(done),
        )
        return self.queue

    def _refused(self, request: Request, reason: str) -> None:
        """A request without a prompt is an error row."""
        assert self._rows is not None
        if self.config.task.on_bad_row == "refuse":
            raise JobError(f"{reason}; mend it, or make error rows: task.on_bad_row=error-row")
        self._rows.add(
            Outcome(Completion(request, [], "", "error", reason), worker=None, attempts=0), plan=""
        )

    def _wanted(self, request: Request, prompts: Prompts) -> Request | None:
        """The request, if its sample may be needed; else it is held back, or forgotten."""
        assert self._sequential is not None
        held = self._sequential.held
        if self._sequential.hold([request]):
            return request
        if self._sequential.held == held:
            prompts.close(request.problem)
        elif self.queue is not None:
            self.queue.held = self._sequential.held
        return None

    def add(self, outcome: Outcome) -> None:
        """A request is done."""
        assert self._rows is not None and self.queue is not None
        self._rows.add(outcome, self.queue.plan)

    def tick(self, stats: Callable[[], Mapping[str, float]] | None = None, seconds: float = 0.0) -> None:
        """Called often: commits, shows and tracks what is due.

        Args:
            stats: Of the engines, for tracking; None: the queue's counters.
            seconds: To wait for a grade, at most.

        Raises:
            JobError: Disk or object store refused for too long, or rows cannot be graded.
        """
        rows, queue = self._rows, self.queue
        if self.frame.state is not None:
            return
        assert rows is not None and queue is not None
        self._take(rows.graded(seconds))
        rows.write()
        self.monitor.live.to_grade = rows.to_grade
        self.monitor.tick(queue)
        if (now := self.frame.clock()) - self._tracked >= self.config.tracking.interval:
            self._tracked = now
            said = stats() if stats else queue.stats
            engines = {f"engine/{name}": said[name] for name in ENGINES if name in said}
            self.frame.tracker.log(self.monitor.metrics() | engines, step=self.monitor.live.done)

    def wait(self) -> None:
        """Until storage that is away takes what is finished, or somebody stops the job.

        Raises:
            NotWritten: It is away for too long.
        """
        rows = self._rows
        while rows is not None and self.frame.state is None:
            try:
                self._take(rows.finish(patience=0.0))
                return
            except NotWritten:
                if rows.next_try is None or self.frame.stop.asked:
                    raise
                due = rows.next_try
            finally:
                self._take(rows.fresh())
            while due > self.frame.clock() and not self.frame.stop.asked:
                time.sleep(1.0)

    def save(self) -> None:
        """No finished row and no known token is lost, whatever ended the work.

        Raises:
            JobError: Disk or object store refused, or rows cannot be graded.
        """
        if self._rows is not None and self.queue is not None and self.frame.state is None:
            try:
                self._take(self._rows.finish(PATIENCE))
            finally:
                self._take(self._rows.fresh())
                self.monitor.live.to_grade = self._rows.to_grade
                self.monitor.tick(self.queue, last=True)

    def close(self) -> None:
        """Ends the graders."""
        if self._rows is not None:
            self._rows.close()

    def conclude(self) -> dict[str, Any]:
        """What the rows come to; also into ``metrics.json`` and the tracker."""
        if self.queue is not None:
            self.monitor.tick(self.queue, last=True)  # else the counters lag behind
        self.monitor.phase("summing up")
        monitor = self.monitor
        saved = self._sequential.saved if self._sequential is not None else None
        rows = self.folder.stream(COLUMNS)
        metrics = summarise(rows, monitor.speed, monitor.engines(), self._first, saved)
        self.folder.write_json(METRICS, metrics)
        self.frame.tracker.log(monitor.metrics() | tracked(metrics), step=monitor.live.done)
        tracker = self.frame.tracker
        tracker.tag({told.NOTE: told.note(self.config, summary_lines(metrics))})
        for name in (CONFIG, METRICS):
            tracker.artifact(name)
        tracker.completions(sample_of(self.folder.in_order(), self.config.tracking.traces))
        return metrics

    def _take(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows that are done now."""
        self.monitor.take(rows)
        self._decide(rows)

    def _decide(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Whether the problems of rows that are done need more samples."""
        if self._sequential is None:
            return
        more = [request for row in rows for request in self._sequential.add(row)]
        if self._prompts is not None:
            for problem, count in self._sequential.forgotten():
                self._prompts.close(problem, count)
        if self.queue is not None:
            self.queue.more(more)
            self.queue.held = self._sequential.held if self.queue.failure is None else 0
        self.monitor.leave_out(self._sequential.saved.samples)
