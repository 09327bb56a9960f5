"""Requests through workers: lanes that say what is to be done, and a fleet that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seer_ray.cluster.coordinator import Outcome
from seer_ray.cluster.fleet import Event, Failed, Fleet, Lost, Ready, Reported
from seer_ray.cluster.lane import Lane


class Crew:
    """Keeps the workers of a fleet fed.

    A worker is on one lane at a time and changes lanes only when it holds nothing: what it measures is that
    lane's alone. Rounds interleave the lanes: the first round of each, then the second of each in the
    opposite order, and so on. A round is released when a worker finds nothing else to do: while the longest
    chains of one end, other workers are on the next.

    Args:
        lanes: What is to be done.
        fleet: The workers.
        note: Told, in a line each, what a person should know.
    """

    def __init__(self, lanes: Sequence[Lane], fleet: Fleet, note: Callable[[str], None]) -> None:
        self.lanes, self.fleet, self._note = lanes, fleet, note
        self._round = 0
        self._order: list[Lane] = []  # of the lanes whose next round is still to be released in this turn
        self._on: dict[str, Lane] = {}
        self._waiting: dict[str, tuple[int, bool]] = {}  # (room, busy) of the workers without a call
        self._stats: dict[str, dict[str, float]] = {}

    @property
    def unfinished(self) -> int:
        return sum(lane.unfinished for lane in self.lanes)

    def poll(self, seconds: float) -> list[tuple[Lane, Outcome]]:
        """The requests that got done; waits up to ``seconds`` for something to happen.

        Raises:
            JobError: no worker is left and none can be started.
            ConfigError: no worker comes up, because of the configuration.
        """
        self.fleet.start(self.unfinished)
        outcomes: list[tuple[Lane, Outcome]] = []
        for event in self.fleet.poll(seconds):
            self.take(event, outcomes)
        for worker, (room, busy) in list(self._waiting.items()):
            lane = self._lane(worker, room, busy)
            if lane is None:
                continue
            sharers = self._sharers(lane)
            new = lane.coordinator.dispatch(worker, room, sharers)
            if new or busy:
                del self._waiting[worker]
                self.fleet.work(worker, new, lane.coordinator.wants(worker, sharers), lane.setting)
        return outcomes

    def take(self, event: Event, outcomes: list[tuple[Lane, Outcome]]) -> None:
        """Learns what happened to a worker; adds to ``outcomes`` the requests that this ended."""
        if isinstance(event, Ready):
            self._waiting[event.worker] = (event.built.room, False)
        elif isinstance(event, Reported):
            report, lane = event.report, self._on[event.worker]
            self._waiting[event.worker] = (report.room, report.busy)
            if report.refused is not None:
                lane.fail(report.refused)
                return
            lane.count(self._stats.get(event.worker, {}), report.stats, self.fleet.ready)
            self._stats[event.worker] = report.stats
            lane.plan = report.plan
            outcomes += [(lane, outcome) for outcome in lane.coordinator.report(event.worker, report.deltas)]
        elif isinstance(event, Failed):
            then = "it is given up" if event.given_up else "it is started again"
            self._note(f"worker {event.worker} did not start, {then}: {event.reason}")
        elif isinstance(event, Lost):
            self._waiting.pop(event.worker, None)
            held, given_up = 0, list[Outcome]()
            if event.worker in self._on:
                lane = self._on.pop(event.worker)
                held = len(lane.coordinator.held(event.worker))
                given_up = lane.coordinator.lost(event.worker, event.reason)
                outcomes += [(lane, outcome) for outcome in given_up]
            message = (
                f"worker {event.worker} died, {held - len(given_up)} chains go on elsewhere: {event.reason}"
            )
            self._note(message + (f"; {len(given_up)} given up" if given_up else ""))

    def stats(self) -> dict[str, float]:
        """Counters of all engines together, also of those that are gone."""
        total: dict[str, float] = {}
        for stats in self._stats.values():
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value
        return total

    def _lane(self, worker: str, room: int, busy: bool) -> Lane | None:
        """What a worker goes on with; None: there is nothing for it now."""
        current = self._on.get(worker)
        while True:
            released = [lane for lane in self.lanes if lane.coordinator.queued]
            if busy and current is not None:
                # The next rounds may be its own lane's: then nothing has to end first.
                while current.coordinator.queued < room and released in ([], [current]):
                    if self._next() is not current:
                        break
                    self._release()
                return current
            wanting = [
                lane for lane in released if lane.coordinator.wants(worker, self._sharers(lane, worker))
            ]
            if wanting:
                lane = next((lane for lane in wanting if lane is current), wanting[0])
                self._on[worker] = lane
                return lane
            if released or self._next() is None:
                return None
            self._release()

    def _sharers(self, lane: Lane, worker: str | None = None) -> int:
        """Workers that may come to a lane: all but those that are at work on another."""
        elsewhere = sum(
            other is not lane and name not in self._waiting
            for name, other in self._on.items()
            if name != worker
        )
        return max(1, self.fleet.size - elsewhere)

    def _next(self) -> Lane | None:
        """The lane whose round is released next."""
        while True:
            self._order = [lane for lane in self._order if lane.rounds_left]
            if self._order:
                return self._order[0]
            self._order = [lane for lane in self.lanes if lane.rounds_left]
            if not self._order:
                return None
            if self._round % 2:
                self._order.reverse()
            self._round += 1

    def _release(self) -> None:
        self._order.pop(0).release()
