"""The workers of a job as Ray actors: started, watched, replaced; more of them as the cluster grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from seer_ray.cluster.actors import WorkerActors
from seer_ray.cluster.deaths import Coroner, Death
from seer_ray.cluster.engine_thread import DecodeOptions
from seer_ray.cluster.events import Event, Failed, Homeless, Lost, Ready, Reported
from seer_ray.cluster.nodes import alive_nodes, resources_of
from seer_ray.cluster.placement import Placement, fitting, free_words, resources
from seer_ray.cluster.slot import PLACING, Slot
from seer_ray.cluster.watch import ClusterWatch
from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.config.errors import ConfigError, JobError, first_line
from seer_ray.config.options import RunConfig
from seer_ray.engine.request import Request

CLOSING = 5.0
"""Seconds that the end of all workers may take."""
CLOSING_LOST = 1.0
"""And of those that were being ended when the cluster was lost: Ray may hang in it."""
BREATH = 20e-6
"""Seconds, times workers, from the first call that ends to the look at all others."""
LOOK = 0.5
"""Seconds between two looks for workers that are late, or have no place."""
SLACK, MOMENT = 1.5, 5.0
"""A worker that starts comes soon if it has not taken longer than so many times what the slowest of the
others took, and so many seconds."""


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
        self._slots = [Slot(number) for number in range(placement.workers)]
        self._at_work: dict[str, Slot] = {}  # those that are ready, by name
        self._coroner = Coroner()
        self._nodes: Sequence[Any] = ()  # that _places and _leaving were found with
        self._leaving: set[str] = set()
        self._places = placement.workers
        self._took = 0.0  # seconds, at most, to get ready
        self._started: int | None = None  # workers that were wanted and have all begun
        self._looked = 0.0
        self._last_death = Death("")
        self._ever_ready = False

    @property
    def report_interval(self) -> float:
        """Seconds between two reports of unfinished chains, at least."""
        return self._config.cluster.report_interval

    @property
    def size(self) -> int:
        """Workers that are there or may still come."""
        return len(self._active())

    @property
    def ready(self) -> int:
        return len(self._at_work)

    @property
    def alive(self) -> int:
        """Workers that are ready, or start."""
        return sum(slot.actors is not None for slot in self._slots)

    @property
    def starting(self) -> int:
        return self.alive - self.ready

    @property
    def sharing(self) -> int:
        """Workers that are ready, or will be as soon as the others were: what there is to do is shared by
        them."""
        soon, now = SLACK * self._took + MOMENT, time.monotonic()
        starting = [slot for slot in self._slots if slot.actors is not None and not slot.ready]
        return self.ready + sum(slot.placed and now - slot.called < soon for slot in starting)

    @property
    def missing(self) -> str:
        """What workers wait for that have no place in the cluster; empty: all have one."""
        homeless = sum(slot.homeless for slot in self._slots)
        return (
            f"no place for {homeless} of {self.size} workers: {self._watch.ask(self._needs)}"
            if homeless
            else ""
        )

    def start(self, wanted: int) -> None:
        """Starts what is missing of ``wanted`` workers, as far as the cluster has places.

        Raises:
            JobError: there is no worker, and none can be started.
        """
        wanted = min(wanted, self._count_places())
        if wanted == self._started:
            return
        self._resize(wanted)
        active = self._active()
        if not active:
            raise JobError(f"no worker could be started: {self._said_last()}")
        room = len(active) - self.alive
        if not self.ready and all(slot.failed_starts or slot.homeless for slot in active):
            worst = max(slot.failed_starts for slot in active)
            if worst >= self._config.cluster.max_deaths:
                raise JobError(f"no worker could be started: {self._said_last()}")
            # None has come up: they are tried one at a time.
            room = min(room, 1 - sum(slot.actors is not None and not slot.homeless for slot in active))
        now = time.monotonic()
        for slot in sorted(active, key=lambda slot: -slot.failed_starts):
            if room > 0 and slot.actors is None and now >= slot.not_before:
                begin = partial(WorkerActors, self._config, self._placement, self._build)
                slot.begin(self._watch.ask(begin))
                room -= 1
        if all(slot.actors is not None for slot in active):
            self._started = wanted

    def leaving(self) -> list[str]:
        """Workers that are ready, on nodes that will soon be gone."""
        nodes = self._leaving
        return [name for name, slot in self._at_work.items() if slot.node in nodes] if nodes else []

    def release(self, worker: str) -> None:
        """Ends a worker that has no call and is not needed; its place is free for others."""
        slot = self._at_work[worker]
        assert slot.call is None, f"{worker} is at work"
        self._end(slot)
        slot.retired = True

    def work(
        self,
        worker: str,
        new: Sequence[Request],
        seconds: float,
        hungry: bool,
        options: DecodeOptions | None = None,
        back: Collection[str] = (),
    ) -> None:
        """Sends a ready worker requests, to be decoded with options (None: as those before), and asks for
        its next report, and for some requests back: see ``EngineLoop.exchange``. One call at a time."""
        slot = self._at_work[worker]
        assert slot.call is None, f"{worker} is not waiting for work"
        slot.called = time.monotonic()
        slot.call = slot.actor.work.remote(list(new), seconds, hungry, options, list(back))

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
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            events += [
                Homeless(slot.name, self._watch.ask(self._needs))
                for slot in self._slots
                if self._homeless(slot)
            ]
            events += [self._overdue(slot) for slot in self._slots if self._late(slot)]
        return events

    def close(self) -> None:
        """Ends all workers at once."""
        # Those of a cluster that is lost end with it; a ray.kill that is under way when Ray is left crashes.
        lost = self._watch.lost is not None
        for slot in () if lost else self._slots:
            self._end(slot)
        deadline = time.monotonic() + (CLOSING_LOST if lost else CLOSING)
        for thread in self._ending:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _active(self) -> list[Slot]:
        return [slot for slot in self._slots if not slot.given_up and not slot.retired]

    def _count_places(self) -> int:
        """Of the cluster as it is now."""
        nodes = self._watch.nodes
        if nodes is not self._nodes and not self._watch.local:
            self._nodes = nodes
            self._leaving = {node.id for node in nodes if node.leaving}
            fit = fitting(resources_of(nodes), self._placement)
            self._places = self._config.cluster.workers or max(1, fit)
        return self._places

    def _resize(self, places: int) -> None:
        """As many slots as there are places, those that are given up included; a worker that has a place
        stays."""
        kept = [slot for slot in self._slots if not slot.retired]
        for slot in self._slots:
            if slot.retired and len(kept) < places:
                slot.retired = False
                kept.append(slot)
        while len(kept) < places:
            kept.append(Slot(len(self._slots)))
            self._slots.append(kept[-1])
        for slot in reversed(kept):
            if len(kept) > max(1, places) and (slot.actors is None or slot.homeless):
                self._end(slot)
                slot.retired = True
                kept.remove(slot)

    def _result(self, slot: Slot, call: Any) -> Event:
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
            return self._dead(slot, Death(f"{type(cause).__name__}: {first_line(cause)}"))
        except RayError as error:
            examine = partial(self._coroner.examine, error, slot.node)
            return self._dead(slot, self._watch.ask(examine))
        if not slot.ready:
            slot.ready = slot.placed = self._ever_ready = True
            slot.homeless, slot.failed_starts, slot.node = False, 0, value.node
            self._took = max(self._took, time.monotonic() - slot.called)
            self._at_work[slot.name] = slot
            return Ready(slot.name, value)
        if any(delta.tokens for delta in value.deltas):
            slot.failures = 0
        return Reported(slot.name, value)

    def _homeless(self, slot: Slot) -> bool:
        """Whether it is time to say that a worker has no place; once for each."""
        import ray

        if slot.actors is None or slot.placed:
            return False
        wanted = slot.actors.placed
        if not ray.wait(wanted, num_returns=len(wanted), timeout=0)[1]:
            slot.placed, slot.homeless, slot.called = True, False, time.monotonic()
        elif not slot.homeless and time.monotonic() - slot.called >= PLACING:
            slot.homeless = True
            return True
        return False

    def _needs(self) -> str:
        """What a worker wants of a cluster, what is free, and what there is, in words."""
        known = resources_of(alive_nodes())
        nodes = "; ".join(resources(node.get("CPU", 0), node.get("GPU", 0)) for node in known)
        return (
            f"{self._placement.words} wanted, {free_words()} free; alive are nodes with {nodes or 'nothing'}"
        )

    def _late(self, slot: Slot) -> bool:
        cluster = self._config.cluster
        limit = cluster.stuck_timeout if slot.ready else cluster.startup_timeout
        # Who has no place waits for the cluster: that is not the worker's fault.
        return slot.call is not None and slot.placed and time.monotonic() - slot.called > limit

    def _overdue(self, slot: Slot) -> Event:
        cluster = self._config.cluster
        if slot.ready:
            return self._dead(slot, Death(f"silent for {cluster.stuck_timeout:g} s (cluster.stuck_timeout)"))
        return self._dead(
            slot, Death(f"not up after {cluster.startup_timeout:g} s (cluster.startup_timeout)")
        )

    def _dead(self, slot: Slot, death: Death) -> Event:
        was_ready, name = slot.ready, slot.name
        if not death.node_gone:
            slot.failed(self._config.cluster.max_failed_starts)
            self._last_death = death
        self._end(slot)
        if was_ready:
            return Lost(name, death.reason, death.node_gone, death.log)
        return Failed(name, death.reason, slot.given_up, death.log)

    def _end(self, slot: Slot) -> None:
        self._started = None
        if slot.actors is not None:
            self._ending = [thread for thread in self._ending if thread.is_alive()] + [slot.actors.kill()]
        self._at_work.pop(slot.name, None)
        slot.end()

    def _said_last(self) -> str:
        return self._last_death.words
