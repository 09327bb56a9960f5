"""The dispatcher: the requests of one run or several to the workers of a pool, their outcomes back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from seer_ray.cluster.assignments import Outcome
from seer_ray.cluster.balance import PAUSE, RELEASE, taken_back
from seer_ray.cluster.events import Event, Failed, Homeless, Lost, Ready, Reported
from seer_ray.cluster.priority import NICENESS
from seer_ray.cluster.report import TRIAL, interval
from seer_ray.cluster.run_queue import COUNTERS, RunQueue
from seer_ray.cluster.worker_pool import WorkerPool


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
        self._sharing = 0  # workers
        self._gone: dict[str, float] = {}  # what engines did that are gone
        self._back: dict[str, list[str]] = {}  # requests that workers are to give back with their next call
        self._moving: set[str] = set()  # workers that have been asked to
        self._idle_since: dict[str, float] = {}
        self._balanced = 0.0
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
        self.pool.start(self._wanted())
        for event in self.pool.poll(seconds):
            self.take(event, outcomes)
        leaving = self.pool.leaving()
        self._let_go(leaving)
        self._balance(leaving)
        self._sharing = self.pool.sharing
        some = any(queue.queued for queue in self.queues)
        for worker, (room, busy) in list(self._waiting.items()):
            if worker in leaving or worker in self._back:
                self._ask_back(worker)
                continue
            queue = self._queue_for(worker, room, busy) if some or busy else None
            if queue is None:
                continue
            workers = self._workers_for(queue)
            new = queue.dispatch(worker, room, workers)
            if new or busy:
                del self._waiting[worker]
                self._at_work[queue] += 1
                hungry = queue.wants(worker, workers)
                self.pool.work(worker, new, self._interval(queue, worker), hungry, queue.options)
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
            self._moving.discard(event.worker)
            self._waiting[event.worker] = (report.room, report.busy)
            if report.refused is not None:
                queue.fail(report.refused)
                return
            queue.count(self._stats.get(event.worker, {}), report.stats, self.pool.ready)
            self._stats[event.worker] = report.stats
            queue.plan = report.plan
            done = queue.report(event.worker, report.deltas, lived, report.waiting)
            outcomes += [(queue, outcome) for outcome in done]
        elif isinstance(event, Failed):
            then = "it is given up" if event.given_up else "it is started again"
            self._note(f"worker {event.worker} did not start, {then}: {event.reason}")
            self._note_log(event)
        elif isinstance(event, Homeless):
            self._note(f"worker {event.worker} waits for a place in the cluster: {event.reason}")
        elif isinstance(event, Lost):
            waited, held, given_up = event.worker in self._waiting, 0, 0
            self._forget(event.worker)
            if event.worker in self._on:
                queue = self._on.pop(event.worker)
                self._at_work[queue] -= not waited
                about = event.reason, self.pool.size, event.blameless, event.log
                held, given_up = queue.lost(event.worker, *about)
                if queue.failure is not None:
                    self._note_log(event)
            message = f"worker {event.worker} died, {held - given_up} chains go on elsewhere: {event.reason}"
            self._note(message + (f"; {given_up} given up" if given_up else ""))

    def _note_log(self, event: Failed | Lost) -> None:
        for line in event.log:
            self._note(f"the log of worker {event.worker}: {line}")

    def stats(self) -> dict[str, float]:
        """Of all engines together: what they did, also those that are gone, and what is in use now."""
        total = dict(self._gone)
        for stats in self._stats.values():
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value
        return total

    def _wanted(self) -> int:
        """Workers that are to be there."""
        waiting = [queue for queue in self.queues if queue.unfinished]
        if all(queue.half_open for queue in waiting):
            return max(1, self.pool.alive)
        if self._last:
            loads = [queue.assignments.load(worker) for worker, queue in self._on.items()]
            if max(loads, default=0) <= 1:
                return max(1, sum(loads))
        return self.unfinished

    @property
    def _last(self) -> bool:
        """All that is to be done is with workers."""
        return not any(queue.queued or queue.held for queue in self.queues)

    def _holding(self) -> dict[str, RunQueue]:
        """Workers that hold requests, and of which run."""
        return {worker: queue for worker, queue in self._on.items() if queue.assignments.load(worker)}

    def _let_go(self, leaving: Sequence[str]) -> None:
        """Workers that are not needed, or on nodes that leave, as soon as they hold nothing."""
        now, on = self._clock(), self._on
        idle = [w for w in self._waiting if w not in on or not on[w].assignments.load(w)]
        self._idle_since = {worker: self._idle_since.get(worker, now) for worker in idle}
        for worker in idle:
            tail = self._last and now - self._idle_since[worker] > RELEASE and self.pool.ready > 1
            if worker in leaving or tail:
                self._note(f"worker {worker} is let go: {'its node leaves' if worker in leaving else 'idle'}")
                self._forget(worker)
                self._on.pop(worker, None)
                self.pool.release(worker)

    def _balance(self, leaving: Sequence[str]) -> None:
        """What nobody waits for moves from crowded workers to idle ones."""
        now = self._clock()
        if not self._last or self._moving or self._back or now - self._balanced < PAUSE:
            return
        self._balanced = now
        holding = self._holding()
        idle = sum(worker not in holding and worker not in leaving for worker in self._waiting)
        for queue in self.queues if idle else ():
            if queue.half_open or not queue.running:
                continue
            workers = [worker for worker, theirs in holding.items() if theirs is queue]
            share = -(-queue.running // (len(workers) + idle))
            found = taken_back(queue.assignments, workers, idle, share)
            idle -= -(-sum(map(len, found.values())) // share)
            self._back |= found

    def _ask_back(self, worker: str) -> None:
        """A worker that waits gives back what it is to, or all that it holds."""
        queue = self._on[worker]
        back = self._back.pop(worker, None) or queue.assignments.held(worker)
        self._moving.add(worker)
        self._at_work[queue] += 1
        del self._waiting[worker]
        self.pool.work(worker, [], self._interval(queue, worker), False, queue.options, back)

    def _interval(self, queue: RunQueue, worker: str) -> float:
        """Seconds until a worker is to tell of unfinished chains."""
        if queue.on_trial(worker):
            return min(self.pool.report_interval, TRIAL)
        running = sum(queue.running for queue in self.queues)
        return interval(self.pool.report_interval, self.pool.ready, running)

    def _forget(self, worker: str) -> None:
        """A worker is gone."""
        self._waiting.pop(worker, None)
        self._back.pop(worker, None)
        self._moving.discard(worker)
        for name in COUNTERS:
            self._gone[name] = self._gone.get(name, 0) + self._stats.get(worker, {}).get(name, 0)
        self._stats.pop(worker, None)

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
            wanting = [q for q in released if q.wants(worker, self._workers_for(q))]
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
        return max(1, self._sharing - elsewhere)

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
