"""A run's figures while it goes: for the reporter, MLflow, and ``status.json``."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from seer_ray.analysis.measures import share_captured
from seer_ray.analysis.metrics import GAUGES, live_fields
from seer_ray.analysis.rows import Totals
from seer_ray.cluster.run_queue import RunQueue
from seer_ray.results.folder import RunFolder
from seer_ray.results.speed import SECONDS, TOKENS, TURNS, Speed
from seer_ray.status.live import LiveStats, Reporter
from seer_ray.status.pulse import STATUS

ENGINES = "all_engines"
COUNTERS = (SECONDS, TOKENS, TURNS, ENGINES)
"""Of a ``status.json``, over all sessions: a session that writes one goes on with those of the one before."""
UPDATE = 0.5
"""Seconds between two updates of the reporter."""
WINDOW = 15.0
"""Seconds that tokens per second are taken over."""


class Monitor:
    """Keeps ``live`` and shows it."""

    def __init__(
        self,
        folder: RunFolder,
        reporter: Reporter,
        total: int,
        first: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            folder: Of the run.
            reporter: Is shown it.
            total: Rows.
            first: Samples of a problem that count for accuracy; None: all.
            clock: Seconds, from any moment on.
        """
        self.live = LiveStats(total=total)
        self.totals = Totals(first)
        self._fresh: list[Mapping[str, Any]] = []
        before = folder.read_json(STATUS) or {}
        self._before = float(before.get(SECONDS, 0.0)), int(before.get(TOKENS, 0))
        self._seconds = 0.0
        self._turns_before = [tuple(turn) for turn in before.get(TURNS) or ()]
        self._turns: list[tuple[float, float]] = []
        self._engines: dict[str, float] = {}
        self._engines_before = dict(before.get(ENGINES) or {})
        self._reporter, self._clock = reporter, clock
        self._began = clock()
        self._speed: deque[tuple[float, int]] = deque()
        self._updated = 0.0

    def start(self, phase: str = "") -> None:
        """Begins to tell; ``phase``: what goes on, in two or three words."""
        self.live.phase = phase
        self._reporter.start(self.live)

    def phase(self, phase: str) -> None:
        """What goes on now, in two or three words."""
        self.live.phase = phase
        self._show()

    def add(self, rows: pa.RecordBatch) -> None:
        """Rows that are done, as ``Totals`` take them."""
        if rows.num_rows:
            self.live.done += rows.num_rows
            self.totals.add(rows)
            self.live.errors = self.totals.errors
            vars(self.live).update(live_fields(self.totals))

    def take(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows that are done now; the next update sums them up, all at once."""
        self.live.done += len(rows)
        self._fresh += rows

    def _sum_up(self) -> None:
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            self.live.done -= len(fresh)
            self.add(Totals.batch(fresh))

    def leave_out(self, samples: int) -> None:
        """So many rows, in all, are not needed."""
        self.live.total += self.live.saved - samples
        self.live.saved = samples

    def tick(self, queue: RunQueue, last: bool = False) -> None:
        """Called often; updates what depends on time and shows it now and then, and the last time.

        Args:
            queue: What is decoded.
            last: Show it in any case.
        """
        now = self._clock()
        if now - self._updated < UPDATE and not last:
            return
        self._updated = now
        self._sum_up()
        live, speed = self.live, self._speed
        live.running, live.queued = queue.running, queue.queued
        live.new_tokens, self._engines, self._seconds = queue.new_tokens, dict(queue.stats), queue.seconds
        live.captured_share = share_captured(self._engines)
        self._turns = list(queue.turns)
        if live.workers_ready:
            speed.append((now, live.new_tokens))
        while len(speed) > 2 and now - speed[1][0] > WINDOW:
            speed.popleft()
        if len(speed) > 1 and speed[-1][0] > speed[0][0]:
            live.tokens_per_s = (speed[-1][1] - speed[0][1]) / (speed[-1][0] - speed[0][0])
        live.eta_s = None
        if self.totals.rows and live.tokens_per_s:
            # Those that still run are longer than those that are done: a lower bound.
            left = queue.unfinished * self.totals.tokens / self.totals.rows
            left -= queue.unfinished_tokens
            live.eta_s = left / live.tokens_per_s if left > 0 else None
        self._show()

    def metrics(self) -> dict[str, float | None]:
        """For MLflow, while the job goes."""
        return {name: getattr(self.live, field) for name, field in GAUGES.items()}

    def _decoding(self) -> tuple[float, int]:
        """(``RunQueue.seconds``, tokens generated) of this session and those before it."""
        return self._before[0] + self._seconds, self._before[1] + self.live.new_tokens

    @property
    def speed(self) -> Speed | None:
        """Of this session and those before it; None: nothing was decoded."""
        return Speed.measured(*self._decoding(), self._turns_before + self._turns)

    @property
    def rate(self) -> float | None:
        """Tokens a second over all of it; None: nothing was decoded."""
        return speed.tokens_per_s if (speed := self.speed) else None

    def engines(self) -> dict[str, float]:
        """Counters of the engines over this session and those before it."""
        before, now = self._engines_before, self._engines
        return {name: before.get(name, 0) + now.get(name, 0) for name in {**before, **now}}

    def _show(self) -> None:
        self.live.elapsed_s = self._clock() - self._began
        self._reporter.update(self.live)

    def said(self) -> dict[str, Any]:
        """For ``status.json``. From any thread."""
        self.live.elapsed_s = self._clock() - self._began
        seconds, tokens = self._decoding()
        return {
            SECONDS: seconds,
            TOKENS: tokens,
            TURNS: self._turns_before + self._turns,
            ENGINES: self.engines(),
            **dataclasses.asdict(self.live),
        }
