"""The workers of a job as Ray actors: started, watched, replaced."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seer_ray.cluster.actors import Ranks
from seer_ray.cluster.engine_thread import Built, Setting, WorkReport
from seer_ray.cluster.placement import WorkerPlan
from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.config.errors import ConfigError, JobError, first_line
from seer_ray.config.options import RunConfig
from seer_ray.engine.request import Request

MAX_FAILURES = 3
"""Starts in a row that come to nothing before a place is given up."""
BACKOFF = 1.0
"""Seconds before the second start of a row; doubles."""


@dataclass
class Ready:
    """A worker has its model."""

    worker: str
    built: Built


@dataclass
class Reported:
    worker: str
    report: WorkReport


@dataclass
class Lost:
    """A worker is gone."""

    worker: str
    reason: str


@dataclass
class Failed:
    """A worker did not come up."""

    worker: str
    reason: str
    given_up: bool


Event = Ready | Reported | Lost | Failed


@dataclass
class _Place:
    """Where one worker after another may live."""

    number: int
    generation: int = -1
    failures: int = 0
    """Starts in a row after which no token came."""
    not_before: float = 0.0
    given_up: bool = False
    ranks: Ranks | None = None
    ready: bool = False
    call: Any = None
    """The one call of rank 0 in flight."""
    called: float = 0.0
    loaded: bool = False
    """It has requests: if it dies the coordinator keeps count, not the place."""

    @property
    def actor(self) -> Any:
        """Of rank 0; None: there is no worker."""
        return self.ranks.first if self.ranks is not None else None

    @property
    def calls(self) -> list[Any]:
        """Of all ranks; that of rank 0, which knows best what is wrong, comes first."""
        mine = [self.call] if self.call is not None else []
        return mine + (self.ranks.following if self.ranks is not None else [])

    @property
    def name(self) -> str:
        return f"w{self.number}" + (f".{self.generation}" if self.generation else "")


class Fleet:
    """Up to ``plan.workers`` workers. Needs a process that is connected to Ray.

    Args:
        config: The job's.
        plan: How many workers, and what each takes.
        build: What makes an engine in a worker.
    """

    def __init__(self, config: RunConfig, plan: WorkerPlan, build: Builder = build_engine) -> None:
        self._config, self._plan, self._build = config, plan, build
        self._places = [_Place(number) for number in range(plan.workers)]
        self._first_reason = ""
        self._ever_ready = False

    @property
    def size(self) -> int:
        """Workers that are there or may still come."""
        return sum(not place.given_up for place in self._places)

    @property
    def ready(self) -> int:
        return sum(place.ready for place in self._places)

    @property
    def starting(self) -> int:
        return sum(place.actor is not None and not place.ready for place in self._places)

    def start(self, wanted: int) -> None:
        """Starts what is missing of ``wanted`` workers.

        Raises:
            JobError: there is no worker, and none can be started.
        """
        alive = sum(place.actor is not None for place in self._places)
        for place in self._places:
            if alive >= min(wanted, len(self._places)):
                return
            if place.actor is None and not place.given_up:
                alive += 1
                if time.monotonic() >= place.not_before:
                    self._start(place)
        if alive == 0:
            raise JobError(f"no worker could be started: {self._first_reason}")

    def work(self, worker: str, new: Sequence[Request], hungry: bool, setting: Setting | None = None) -> None:
        """Sends a ready worker requests, to be decoded with a setting (None: as those before), and asks for
        its next report. One call at a time."""
        place = self._by_name(worker)
        assert place.ready and place.call is None, f"{worker} is not waiting for work"
        place.loaded = True
        place.called = time.monotonic()
        place.call = place.actor.work.remote(list(new), self._config.cluster.report_interval, hungry, setting)

    def poll(self, seconds: float) -> list[Event]:
        """What happened; waits up to ``seconds`` for something to happen.

        Raises:
            ConfigError: no worker ever came up, because of the configuration.
        """
        import ray

        calls = {call: place for place in self._places for call in place.calls}
        if not calls:
            time.sleep(min(seconds, 0.05))
            return []
        done, _ = ray.wait(list(calls), num_returns=1, timeout=seconds)
        if done:
            done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        events = []
        for call, place in calls.items():
            if call in done and call in place.calls:  # else the worker has just ended by another call
                events.append(self._result(place, call))
        return events + [self._overdue(place) for place in self._places if self._late(place)]

    def close(self) -> None:
        """Ends all workers at once."""
        for place in self._places:
            self._end(place)

    def _start(self, place: _Place) -> None:
        place.generation += 1
        place.ranks = Ranks(self._config, self._plan, self._build)
        place.call, place.called = place.ranks.started, time.monotonic()

    def _result(self, place: _Place, call: Any) -> Event:
        import ray
        from ray.exceptions import RayError, RayTaskError

        if call == place.call:
            place.call = None
        try:
            value = ray.get(call)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ConfigError) and not place.ready and not self._ever_ready:
                raise ConfigError(str(cause)) from error
            return self._dead(place, f"{type(cause).__name__}: {first_line(cause)}")
        except RayError as error:
            return self._dead(place, _death(error))
        if not place.ready:
            place.ready = self._ever_ready = True
            return Ready(place.name, value)
        place.loaded = value.busy
        if value.deltas:
            place.failures = 0
        return Reported(place.name, value)

    def _late(self, place: _Place) -> bool:
        cluster = self._config.cluster
        limit = cluster.stuck_timeout if place.ready else cluster.startup_timeout
        return place.call is not None and time.monotonic() - place.called > limit

    def _overdue(self, place: _Place) -> Event:
        cluster = self._config.cluster
        if place.ready:
            return self._dead(place, f"silent for {cluster.stuck_timeout:g} s (cluster.stuck_timeout)")
        return self._dead(place, f"not up after {cluster.startup_timeout:g} s (cluster.startup_timeout)")

    def _dead(self, place: _Place, reason: str) -> Event:
        was_ready, was_loaded, name = place.ready, place.loaded, place.name
        self._end(place)
        if not was_loaded:
            self._first_reason = self._first_reason or reason
            place.failures += 1
            place.given_up = place.failures >= MAX_FAILURES
            place.not_before = time.monotonic() + BACKOFF * 2 ** (place.failures - 1)
        return Lost(name, reason) if was_ready else Failed(name, reason, place.given_up)

    def _end(self, place: _Place) -> None:
        if place.ranks is not None:
            place.ranks.kill()
        place.ranks, place.call, place.ready, place.loaded = None, None, False, False

    def _by_name(self, worker: str) -> _Place:
        return next(place for place in self._places if place.actor is not None and place.name == worker)


def _death(error: Exception) -> str:
    """Why Ray thinks that a process is gone, in one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if "low on memory" in text:
        return "Ray killed it because its node ran low on memory"
    if "connection error code" in text:
        return "its process ended unexpectedly (killed from outside, out of memory, or crashed)"
    if "creation task" in text:
        return text.strip().splitlines()[-1].strip()
    return first_line(text)
