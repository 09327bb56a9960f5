"""A job's figures while it runs: to the reporter, to MLflow, and to ``status.json`` for other terminals."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from seer_ray.analysis.statistics import Accuracy
from seer_ray.cluster.coordinator import Coordinator
from seer_ray.jobs.live import LiveStats, Reporter
from seer_ray.results.folder import RunFolder

STATUS = "status.json"
HEARTBEAT = 5.0
"""Seconds between two writes of ``status.json``."""
UPDATE = 0.5
"""Seconds between two updates of the reporter."""
WINDOW = 15.0
"""Seconds that tokens per second are taken over."""


@dataclasses.dataclass
class Totals:
    """Sums over rows, for figures that are ratios of sums."""

    rows: int = 0
    tokens: int = 0
    attended: int = 0
    available: int = 0
    contexts: int = 0
    """Length of the context of each generated token, summed: what one head of one layer could have read."""

    def add(self, row: Mapping[str, Any]) -> None:
        """A row with a completion; what ``COLUMNS`` names is read."""
        prompt, length = row["prompt_tokens"], row["completion_tokens"]
        self.rows += 1
        self.tokens += length
        self.attended += row["attended_kv"]
        self.available += row["available_kv"]
        self.contexts += length * prompt + length * (length - 1) // 2

    @property
    def sparsity(self) -> float | None:
        return 1 - self.attended / self.available if self.available else None

    @property
    def mean_attended(self) -> float | None:
        """KV tokens read per layer, KV head and decode step."""
        if not self.available or not self.tokens:
            return None
        return self.attended / self.available * self.contexts / self.tokens


COLUMNS = (
    "problem_id",
    "correct",
    "error",
    "prompt_tokens",
    "completion_tokens",
    "attended_kv",
    "available_kv",
)
"""What a monitor reads of a row."""


class Monitor:
    """Keeps ``live`` and shows it. A thread of its own keeps the heartbeat while the job's thread is busy."""

    def __init__(self, folder: RunFolder, reporter: Reporter, total: int) -> None:
        self.live = LiveStats(total=total)
        self.accuracy, self.totals = Accuracy(), Totals()
        before = folder.read_json(STATUS) or {}
        self._before = float(before.get("all_decoding_s", 0.0)), int(before.get("all_new_tokens", 0))
        self._decoding_since: float | None = None
        self._folder, self._reporter = folder, reporter
        self._began = time.monotonic()
        self._speed: deque[tuple[float, int]] = deque()
        self._updated = 0.0
        self._stop = threading.Event()
        self._state, self._error = "running", None  # type: str, str | None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begins to tell."""
        self._reporter.start(self.live)
        self._thread.start()

    def phase(self, phase: str) -> None:
        """What goes on now, in two or three words."""
        self.live.phase = phase
        self._show()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows that are done, now or in an earlier session."""
        for row in rows:
            self.live.done += 1
            self.accuracy.add(row["problem_id"], row["correct"], row["error"] is not None)
            if row["error"] is None:
                self.totals.add(row)
            else:
                self.live.errors += 1
        self.live.accuracy, self.live.accuracy_se = self.accuracy.mean, self.accuracy.stderr
        self.live.mean_attended, self.live.sparsity = self.totals.mean_attended, self.totals.sparsity

    def tick(self, coordinator: Coordinator, last: bool = False) -> None:
        """Called often; updates what depends on time and shows it now and then, and the last time."""
        now = time.monotonic()
        if now - self._updated < UPDATE and not last:
            return
        if self.live.workers_ready and self._decoding_since is None:
            self._decoding_since = now
        self._updated = now
        live, speed = self.live, self._speed
        live.running, live.queued = coordinator.running, coordinator.queued
        live.new_tokens = coordinator.new_tokens
        if live.workers_ready:
            speed.append((now, live.new_tokens))
        while len(speed) > 2 and now - speed[1][0] > WINDOW:
            speed.popleft()
        if len(speed) > 1:
            live.tokens_per_s = (speed[-1][1] - speed[0][1]) / (speed[-1][0] - speed[0][0])
        live.eta_s = None
        if self.totals.rows and live.tokens_per_s:
            # Those that still run are longer than those that are done: a lower bound.
            left = coordinator.unfinished * self.totals.tokens / self.totals.rows
            left -= coordinator.unfinished_tokens
            live.eta_s = left / live.tokens_per_s if left > 0 else None
        self._show()

    def metrics(self) -> dict[str, float | None]:
        """For MLflow, while the job goes."""
        live = self.live
        return {
            "live/done": live.done,
            "live/errors": live.errors,
            "live/running": live.running,
            "live/queued": live.queued,
            "live/workers": live.workers_ready,
            "live/new_tokens": live.new_tokens,
            "live/tokens_per_s": live.tokens_per_s,
            "live/accuracy": live.accuracy,
            "live/accuracy_stderr": live.accuracy_se,
            "live/mean_attended": live.mean_attended,
            "live/sparsity": live.sparsity,
        }

    def decoding(self) -> tuple[float, int]:
        """(seconds with a worker that was ready, tokens generated) of this session and those before it."""
        now = time.monotonic()
        return self._before[0] + now - (self._decoding_since or now), self._before[1] + self.live.new_tokens

    def end(self, state: str, error: str | None = None) -> None:
        """The last word in ``status.json``: ``done``, ``failed`` or ``interrupted``."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._state, self._error = state, error
        with contextlib.suppress(OSError):
            self._write()

    def _show(self) -> None:
        self.live.elapsed_s = time.monotonic() - self._began
        self._reporter.update(self.live)

    def _beat(self) -> None:
        while True:
            # A disk that is full for a moment is told of by who writes rows to it.
            with contextlib.suppress(OSError):
                self._write()
            if self._stop.wait(HEARTBEAT):
                return

    def _write(self) -> None:
        self.live.elapsed_s = time.monotonic() - self._began
        seconds, tokens = self.decoding()
        said = {
            "state": self._state,
            "error": self._error,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "heartbeat": time.time(),
            "all_decoding_s": seconds,
            "all_new_tokens": tokens,
            **dataclasses.asdict(self.live),
        }
        self._folder.write_json(STATUS, said)
