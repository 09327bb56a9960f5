"""One run folder that is being worked on: what is to be decoded, what came of it, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from seer_ray.analysis.metrics import COLUMNS, summarise
from seer_ray.analysis.rows import Totals
from seer_ray.cluster.coordinator import Outcome
from seer_ray.cluster.engine_thread import Setting
from seer_ray.cluster.lane import Lane
from seer_ray.config.options import RunConfig, options
from seer_ray.driver.dataset import describe
from seer_ray.driver.monitor import Monitor
from seer_ray.driver.requests import Prompt
from seer_ray.driver.rows import RowWriter
from seer_ray.engine.request import Request
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import Reporter
from seer_ray.tasks.grading import Grader
from seer_ray.tasks.problem import Problem
from seer_ray.tracking.tracker import Status, Tracker

METRICS = "metrics.json"
State = Literal["done", "stopped early", "failed", "interrupted"]
TRACKED: dict[State, Status] = {
    "done": "FINISHED",
    "stopped early": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class Session:
    """A run from where its folder stands to its end, or as far as it comes.

    Args:
        config: All options.
        folder: Open to write.
        problems: All of them, in order.
        reporter: Shows how it goes.
        tracker: Started by ``begin``.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        problems: Sequence[Problem],
        reporter: Reporter,
        tracker: Tracker,
    ) -> None:
        self.config, self.folder, self.problems = config, folder, problems
        self.reporter, self.tracker = reporter, tracker
        self.monitor = Monitor(folder, reporter, len(problems) * config.samples)
        self.monitor.add(folder.read(Totals.COLUMNS).to_pylist())
        self.monitor.live.resumed = self.monitor.live.done
        self.state: State | None = None
        """How this session of it ended; None: it has not."""
        self.lane: Lane | None = None
        self._rows: RowWriter | None = None
        self._tracked = 0.0

    @property
    def name(self) -> str:
        return str(self.config.name)

    @property
    def complete(self) -> bool:
        """Every row is there."""
        return self.monitor.live.done == self.monitor.live.total

    @property
    def concluded(self) -> bool:
        """Every row is there, and what they come to."""
        return self.complete and bool(self.metrics())

    @property
    def pending(self) -> int:
        """Rows that are here and not committed yet."""
        return self._rows.pending if self._rows is not None else 0

    def metrics(self) -> dict[str, Any]:
        """Final ones, of a run that has come to its end."""
        return self.folder.read_json(METRICS) or {}

    def begin(self) -> None:
        """Something is going to happen: tells who watches."""
        params = {name: value for name, value, _ in options(self.config)}
        self.tracker.start(self.name, params, describe(self.problems, self.config))
        self.monitor.start()

    def prepare(
        self,
        prompts: Mapping[str, Prompt],
        tokenizer: Any,
        round_problems: int | None = None,
        pool: Grader | None = None,
    ) -> Lane:
        """What is not committed, as a lane for workers.

        Args:
            prompts: Of the problems.
            tokenizer: That made them.
            round_problems: Problems of a round; None: one round.
            pool: Grades; None: a pool of its own.

        Raises:
            ConfigError: No such model or grader.
        """
        # Brings torch and transformers along: a run that is done needs neither.
        from seer_ray.driver.requests import make_requests

        config, log = self.config, self.folder.progress()
        requests, attempts = make_requests(config, prompts, tokenizer, self.folder.committed(), log)
        self._rows = RowWriter(
            self.folder,
            log,
            config,
            prompts,
            lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True),
            self.reporter.note,
            pool,
        )
        self.lane = Lane(
            self.name,
            self._rounds(requests, round_problems or len(self.problems)),
            config.cluster.max_attempts,
            attempts,
            Setting(config.engine, config.selector),
        )
        return self.lane

    def add(self, outcome: Outcome) -> None:
        """A request is done."""
        assert self._rows is not None and self.lane is not None
        self._rows.add(outcome, self.lane.plan)

    def tick(self, stats: Callable[[], Mapping[str, float]] | None = None) -> None:
        """Called often: commits, shows and tracks what is due.

        Args:
            stats: Of the engines, for tracking; None: the lane's counters.

        Raises:
            JobError: Disk or object store refused for too long.
        """
        rows, lane = self._rows, self.lane
        if self.state is not None:
            return
        assert rows is not None and lane is not None
        rows.keep(lane.coordinator.changes())
        self.monitor.add(rows.graded())
        rows.write()
        self.monitor.tick(lane)
        if time.monotonic() - self._tracked >= self.config.tracking.interval:
            self._tracked = time.monotonic()
            engines = {f"engine/{name}": value for name, value in (stats() if stats else lane.stats).items()}
            self.tracker.log(self.monitor.metrics() | engines, step=self.monitor.live.done)

    def save(self) -> None:
        """No finished row and no known token is lost, whatever ended the work.

        Raises:
            JobError: Disk or object store refused.
        """
        if self._rows is not None and self.lane is not None and self.state is None:
            self._rows.keep(self.lane.coordinator.changes())
            self.monitor.add(self._rows.finish())
            self.monitor.tick(self.lane, last=True)

    def end(self, state: State, error: BaseException | str | None = None) -> None:
        """The last word of this session, to who watches and to the tracker."""
        self.state = state
        reason = (" ".join(str(error).split()) or type(error).__name__) if error is not None else None
        self.monitor.end(state, reason)
        self.tracker.finish(TRACKED[state])

    def close(self) -> None:
        """Ends the graders."""
        if self._rows is not None:
            self._rows.close()

    def conclude(self) -> dict[str, Any]:
        """What the rows come to; also into ``metrics.json`` and the tracker."""
        if self.lane is not None:
            self.monitor.tick(self.lane, last=True)  # else the counters lag behind
        self.monitor.phase("summing up")
        self.folder.compact()
        monitor = self.monitor
        metrics = summarise(self.folder.read(COLUMNS), monitor.speed, monitor.engines())
        self.folder.write_json(METRICS, metrics)
        self.tracker.log(monitor.metrics() | metrics, step=monitor.live.done)
        for name in ("config.yaml", METRICS):
            self.tracker.artifact(name)
        return metrics

    def _rounds(self, requests: Sequence[Request], size: int) -> list[list[Request]]:
        """Requests by the place of their problems in the dataset."""
        place = {problem.id: index // size for index, problem in enumerate(self.problems)}
        rounds: list[list[Request]] = [[] for _ in range(-(-len(self.problems) // size))]
        for request in requests:
            rounds[place[request.problem]].append(request)
        return rounds
