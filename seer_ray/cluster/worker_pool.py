"""The workers of a job as Ray actors: started, watched, replaced."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seer_ray.cluster.actors import WorkerActors
from seer_ray.cluster.connect import logs_folder
from seer_ray.cluster.engine_thread import Built, DecodeOptions, WorkReport
from seer_ray.cluster.placement import Placement, cluster_nodes, free_words, resources
from seer_ray.cluster.report import interval
from seer_ray.cluster.watch import ClusterWatch
from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.config.errors import ConfigError, JobError, first_line
from seer_ray.config.options import RunConfig
from seer_ray.engine.request import Request

MAX_FAILURES = 3
"""Starts in a row that come to nothing before a slot is given up."""
PLACING = 10.0
"""Seconds after which a worker that has no place in the cluster is told of."""
CLOSING = 5.0
"""Seconds that the end of all workers may take."""
LOG_TAIL = 20_000
"""Bytes."""
FATAL = re.compile(r"Fatal Python error|\*\*\* SIG|what\(\):|\w(Error|Exception): |CUDA error|Bus error")
"""Is in the line of a log that says why a process ends."""
BREATH = 20e-6
"""Seconds, times workers, from the first call that ends to the look at all others."""
LOOK = 0.5
"""Seconds between two looks for workers that are late."""
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


@dataclass
class Homeless:
    """A worker has waited for a place in the cluster for long."""

    worker: str
    reason: str


Event = Ready | Reported | Lost | Failed | Homeless


@dataclass
class _Slot:
    """Where one worker after another may live."""

    number: int
    generation: int = -1
    failures: int = 0
    """Starts in a row after which no token came."""
    not_before: float = 0.0
    given_up: bool = False
    actors: WorkerActors | None = None
    ready: bool = False
    call: Any = None
    """The one call of rank 0 in flight."""
    called: float = 0.0
    told: bool = False
    """It has been looked whether it has a place."""
    loaded: bool = False
    """It has requests: if it dies ``Assignments`` keep count, not the slot."""

    @property
    def actor(self) -> Any:
        """Of rank 0; None: there is no worker."""
        return self.actors.first if self.actors is not None else None

    @property
    def calls(self) -> list[Any]:
        """Of all ranks; that of rank 0, which knows best what is wrong, comes first."""
        mine = [self.call] if self.call is not None else []
        return mine + (self.actors.following if self.actors is not None else [])

    @property
    def name(self) -> str:
        return f"w{self.number}" + (f".{self.generation}" if self.generation else "")


class WorkerPool:
    """Up to ``placement.workers`` workers. Needs a process that is connected to Ray.

    Args:
        config: The job's.
        placement: How many workers, and what each takes.
        build: What makes an engine in a worker.
        watch: Whether the cluster is still there; None: nobody looks.
    """

    def __init__(
        self,
        config: RunConfig,
        placement: Placement,
        build: Builder = build_engine,
        watch: ClusterWatch | None = None,
    ) -> None:
        self._config, self._placement, self._build = config, placement, build
        self._watch = watch or ClusterWatch({})
        self._ending: list[threading.Thread] = []
        self._slots = [_Slot(number) for number in range(placement.workers)]
        self._at_work: dict[str, _Slot] = {}  # those that are ready, by name
        self._looked = 0.0
        self._first_reason = ""
        self._ever_ready = False

    @property
    def size(self) -> int:
        """Workers that are there or may still come."""
        return sum(not slot.given_up for slot in self._slots)

    @property
    def ready(self) -> int:
        return len(self._at_work)

    @property
    def starting(self) -> int:
        return sum(slot.actor is not None and not slot.ready for slot in self._slots)

    def start(self, wanted: int) -> None:
        """Starts what is missing of ``wanted`` workers.

        Raises:
            JobError: there is no worker, and none can be started.
        """
        alive = sum(slot.actor is not None for slot in self._slots)
        for slot in self._slots:
            if alive >= min(wanted, len(self._slots)):
                return
            if slot.actor is None and not slot.given_up:
                alive += 1
                if time.monotonic() >= slot.not_before:
                    self._start(slot)
        if alive == 0:
            raise JobError(f"no worker could be started: {self._first_reason}")

    def work(
        self, worker: str, new: Sequence[Request], hungry: bool, options: DecodeOptions | None = None
    ) -> None:
        """Sends a ready worker requests, to be decoded with options (None: as those before), and asks for
        its next report. One call at a time."""
        slot = self._at_work[worker]
        assert slot.call is None, f"{worker} is not waiting for work"
        slot.loaded = True
        slot.called = time.monotonic()
        seconds = interval(self._config.cluster.report_interval, self.ready)
        slot.call = slot.actor.work.remote(list(new), seconds, hungry, options)

    def poll(self, seconds: float) -> list[Event]:
        """What happened; waits up to ``seconds`` for something to happen.

        Raises:
            ConfigError: no worker ever came up, because of the configuration.
            ClusterLost: the cluster is gone.
        """
        import ray

        self._watch.check()
        calls = {call: slot for slot in self._slots for call in slot.calls}
        if not calls:
            time.sleep(min(seconds, 0.05))
            return []
        done, _ = ray.wait(list(calls), num_returns=1, timeout=seconds)
        if done:
            # What ends within a moment is taken together: each look costs something for each worker.
            time.sleep(BREATH * len(calls))
            done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        events: list[Event] = []
        ended = set(done)
        for call, slot in calls.items():
            if call in ended and call in slot.calls:  # else the worker has just ended by another call
                events.append(self._result(slot, call))
        if (now := time.monotonic()) - self._looked < LOOK:
            return events
        self._looked = now
        events += [self._overdue(slot) for slot in self._slots if self._late(slot)]
        return events + [Homeless(slot.name, self._needs()) for slot in self._slots if self._homeless(slot)]

    def close(self) -> None:
        """Ends all workers at once."""
        for slot in self._slots:
            self._end(slot)
        if self._watch.lost is None:
            deadline = time.monotonic() + CLOSING
            for thread in self._ending:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self, slot: _Slot) -> None:
        slot.generation += 1
        slot.told = False
        slot.actors = WorkerActors(self._config, self._placement, self._build)
        slot.call, slot.called = slot.actors.started, time.monotonic()

    def _result(self, slot: _Slot, call: Any) -> Event:
        import ray
        from ray.exceptions import RayError, RayTaskError

        if call == slot.call:
            slot.call = None
        try:
            value = ray.get(call)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ConfigError) and not slot.ready and not self._ever_ready:
                raise ConfigError(str(cause)) from error
            return self._dead(slot, f"{type(cause).__name__}: {first_line(cause)}")
        except RayError as error:
            return self._dead(slot, _death(error))
        if not slot.ready:
            slot.ready = self._ever_ready = True
            self._at_work[slot.name] = slot
            return Ready(slot.name, value)
        slot.loaded = value.busy
        if value.deltas:
            slot.failures = 0
        return Reported(slot.name, value)

    def _homeless(self, slot: _Slot) -> bool:
        """Whether it is time to say that a worker has no place; once for each."""
        import ray

        if slot.actors is None or slot.ready or slot.told or time.monotonic() - slot.called < PLACING:
            return False
        slot.told = True
        return len(ray.wait(slot.actors.placed, num_returns=len(slot.actors.placed), timeout=0)[1]) > 0

    def _needs(self) -> str:
        """What a worker wants of a cluster, what is free, and what there is, in words."""
        nodes = "; ".join(resources(node.get("CPU", 0), node.get("GPU", 0)) for node in cluster_nodes())
        return (
            f"{self._placement.words} wanted, {free_words()} free; alive are nodes with {nodes or 'nothing'}"
        )

    def _late(self, slot: _Slot) -> bool:
        cluster = self._config.cluster
        limit = cluster.stuck_timeout if slot.ready else cluster.startup_timeout
        return slot.call is not None and time.monotonic() - slot.called > limit

    def _overdue(self, slot: _Slot) -> Event:
        cluster = self._config.cluster
        if slot.ready:
            return self._dead(slot, f"silent for {cluster.stuck_timeout:g} s (cluster.stuck_timeout)")
        return self._dead(slot, f"not up after {cluster.startup_timeout:g} s (cluster.startup_timeout)")

    def _dead(self, slot: _Slot, reason: str) -> Event:
        was_ready, was_loaded, name = slot.ready, slot.loaded, slot.name
        self._end(slot)
        if not was_loaded:
            self._first_reason = self._first_reason or reason
            slot.failures += 1
            slot.given_up = slot.failures >= MAX_FAILURES
            slot.not_before = time.monotonic() + BACKOFF * 2 ** (slot.failures - 1)
        return Lost(name, reason) if was_ready else Failed(name, reason, slot.given_up)

    def _end(self, slot: _Slot) -> None:
        if slot.actors is not None:
            self._ending = [thread for thread in self._ending if thread.is_alive()] + [slot.actors.kill()]
        self._at_work.pop(slot.name, None)
        slot.actors, slot.call, slot.ready, slot.loaded = None, None, False, False


def _death(error: Exception) -> str:
    """Why Ray thinks that a process is gone, in one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if "low on memory" in text:
        return "Ray killed it because its node ran low on memory"
    if "connection error code" in text:
        process = re.search(r"\bpid: (\d+)", text)
        words = last_words(logs_folder(), int(process[1])) if process else None
        why = f"its log ends with: {words}" if words else "killed from outside, out of memory, or crashed"
        return f"its process ended unexpectedly ({why})"
    if "creation task" in text:
        return text.strip().splitlines()[-1].strip()
    return first_line(text)


def last_words(logs: Path, pid: int) -> str | None:
    """The line in which a process of this machine said why it ends; None: it said nothing that is known here.

    Args:
        logs: Folder of Ray's logs.
    """
    for path in logs.glob(f"worker-*-{pid}.err"):
        with contextlib.suppress(OSError):
            lines = path.read_bytes()[-LOG_TAIL:].decode(errors="replace").splitlines()
            if found := [line.strip() for line in lines if FATAL.search(line)]:
                return found[-1][:200]
    return None
