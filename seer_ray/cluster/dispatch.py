"""The dispatcher: the requests of one run or several to the workers of a pool, their outcomes back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from seer_ray.cluster.assignments import Outcome
from seer_ray.cluster.priority import NICENESS
from seer_ray.cluster.run_queue import RunQueue
from seer_ray.cluster.worker_pool import Event, Failed, Homeless, Lost, Ready, Reported, WorkerPool


class Dispatcher:
    """Keeps the workers of a pool fed.

    A worker is on one run at a time and changes runs only when it holds nothing: what it measures is that
    run's alone. Rounds interleave the runs: the first round of each, then the second of each in the
    opposite order, and so on. A round is released when a worker finds nothing else to do: while the longest
    chains of one end, other workers are on the next.

    Args:
        queues: Of the runs.
        pool: The workers.
        note: Told, in a line each, what a person should know.
        clock: Seconds, from any moment on.
    """

    def __init__(
        self,
        queues: Sequence[RunQueue],
        pool: WorkerPool,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queues, self.pool, self._note, self._clock = queues, pool, note, clock
        self._round = 0
        self._order: list[RunQueue] = []  # of those whose next round is still to be released in this turn
        self._on: dict[str, RunQueue] = {}
        self._waiting: dict[str, tuple[int, bool]] = {}  # (room, busy) of the workers without a call
        self._stats: dict[str, dict[str, float]] = {}
        self._ready_since: dict[str, float] = {}
        self._at_work: Counter[RunQueue] = Counter()  # workers that have a call, by their run
        self._size = 0
        self._told_niceness = False
        self._noted: set[str] = set()

    @property
    def unfinished(self) -> int:
        return sum(queue.unfinished for queue in self.queues)

    def poll(self, seconds: float) -> list[tuple[RunQueue, Outcome]]:
        """The requests that got done; waits up to ``seconds`` for something to happen.

        Raises:
            JobError: no worker is left and none can be started, or the cluster is gone.
            ConfigError: no worker comes up, because of the configuration.
        """
        outcomes = [(queue, outcome) for queue in self.queues for outcome in queue.settle()]
        if not self.unfinished:
            return outcomes
        self.pool.start(self.unfinished)
        for event in self.pool.poll(seconds):
            self.take(event, outcomes)
        self._size = self.pool.size
        some = any(queue.queued for queue in self.queues)
        for worker, (room, busy) in list(self._waiting.items()):
            queue = self._queue_for(worker, room, busy) if some or busy else None
            if queue is None:
                continue
            workers = self._workers_for(queue)
            new = queue.assignments.dispatch(worker, room, workers)
            if new or busy:
                del self._waiting[worker]
                self._at_work[queue] += 1
                self.pool.work(worker, new, queue.assignments.wants(worker, workers), queue.options)
        return outcomes

    def take(self, event: Event, outcomes: list[tuple[RunQueue, Outcome]]) -> None:
        """Learns what happened to a worker; adds to ``outcomes`` the requests that this ended."""
        if isinstance(event, Ready):
            if event.built.niceness and not self._told_niceness:
                self._told_niceness = True
                self._note(
                    f"Ray has made its workers nicer by {event.built.niceness}: whatever else runs there "
                    f"slows them down; start the cluster with {NICENESS}=0"
                )
            self._ready_since[event.worker] = self._clock()
            self._waiting[event.worker] = (event.built.room, False)
            if event.built.note is not None and event.built.note not in self._noted:
                self._noted.add(event.built.note)
                self._note(f"{event.worker}: {event.built.note}")
        elif isinstance(event, Reported):
            report, queue = event.report, self._on[event.worker]
            self._at_work[queue] -= 1
            lived = self._clock() - self._ready_since[event.worker]
            self._waiting[event.worker] = (report.room, report.busy)
            if report.refused is not None:
                queue.fail(report.refused)
                return
            queue.count(self._stats.get(event.worker, {}), report.stats, self.pool.ready)
            self._stats[event.worker] = report.stats
            queue.plan = report.plan
            outcomes += [(queue, outcome) for outcome in queue.report(event.worker, report.deltas, lived)]
        elif isinstance(event, Failed):
            then = "it is given up" if event.given_up else "it is started again"
            self._note(f"worker {event.worker} did not start, {then}: {event.reason}")
        elif isinstance(event, Homeless):
            self._note(f"worker {event.worker} waits for a place in the cluster: {event.reason}")
        elif isinstance(event, Lost):
            waited = self._waiting.pop(event.worker, None) is not None
            held = given_up = 0
            if event.worker in self._on:
                queue = self._on.pop(event.worker)
                self._at_work[queue] -= not waited
                held, given_up = queue.lost(event.worker, event.reason, self.pool.size)
            message = f"worker {event.worker} died, {held - given_up} chains go on elsewhere: {event.reason}"
            self._note(message + (f"; {given_up} given up" if given_up else ""))

    def stats(self) -> dict[str, float]:
        """Counters of all engines together, also of those that are gone."""
        total: dict[str, float] = {}
        for stats in self._stats.values():
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value
        return total

    def _queue_for(self, worker: str, room: int, busy: bool) -> RunQueue | None:
        """The run that a worker goes on with; None: there is nothing for it now."""
        current = self._on.get(worker)
        while True:
            released = [queue for queue in self.queues if queue.assignments.queued]
            if busy and current is not None:
                # The next rounds may be its own run's: then nothing has to end first.
                while current.assignments.queued < room and released in ([], [current]):
                    if self._next() is not current:
                        break
                    self._release()
                return current
            wanting = [q for q in released if q.assignments.wants(worker, self._workers_for(q))]
            if wanting:
                queue = next((queue for queue in wanting if queue is current), wanting[0])
                self._on[worker] = queue
                return queue
            if released or self._next() is None:
                return None
            self._release()

    def _workers_for(self, queue: RunQueue) -> int:
        """Workers that may come to a run: all but those that are at work on another."""
        elsewhere = self._at_work.total() - self._at_work[queue]
        return max(1, self._size - elsewhere)

    def _next(self) -> RunQueue | None:
        """The run whose round is released next."""
        while True:
            self._order = [queue for queue in self._order if queue.rounds_left]
            if self._order:
                return self._order[0]
            self._order = [queue for queue in self.queues if queue.rounds_left]
            if not self._order:
                return None
            if self._round % 2:
                self._order.reverse()
            self._round += 1

    def _release(self) -> None:
        self._order.pop(0).release()
