"""Requests through workers: a coordinator that decides and a fleet that does."""

from __future__ import annotations

from collections.abc import Callable

from seer_ray.cluster.coordinator import Coordinator, Outcome
from seer_ray.cluster.fleet import Event, Failed, Fleet, Lost, Ready, Reported


class Crew:
    """Keeps the workers of a fleet fed from a coordinator.

    Args:
        coordinator: The requests.
        fleet: The workers.
        note: Told, in a line each, what a person should know.
    """

    def __init__(self, coordinator: Coordinator, fleet: Fleet, note: Callable[[str], None]) -> None:
        self.coordinator, self.fleet, self._note = coordinator, fleet, note
        self.plan: str | None = None
        """Layer plan of the workers' engines, readable; None before the first worker is ready."""
        self._waiting: dict[str, tuple[int, bool]] = {}  # (room, busy) of the workers without a call
        self._stats: dict[str, dict[str, float]] = {}

    def poll(self, seconds: float) -> list[Outcome]:
        """The requests that got done; waits up to ``seconds`` for something to happen.

        Raises:
            JobError: no worker is left and none can be started.
            ConfigError: no worker comes up, because of the configuration.
        """
        self.fleet.start(self.coordinator.unfinished)
        outcomes: list[Outcome] = []
        for event in self.fleet.poll(seconds):
            self.take(event, outcomes)
        for worker, (room, busy) in list(self._waiting.items()):
            new = self.coordinator.dispatch(worker, room, self.fleet.size)
            if new or busy:
                del self._waiting[worker]
                self.fleet.work(worker, new, self.coordinator.wants(worker, self.fleet.size))
        return outcomes

    def take(self, event: Event, outcomes: list[Outcome]) -> None:
        """Learns what happened to a worker; adds to ``outcomes`` the requests that this ended."""
        if isinstance(event, Ready):
            self._waiting[event.worker] = (event.built.room, False)
            self.plan = event.built.plan
        elif isinstance(event, Reported):
            self._stats[event.worker] = event.report.stats
            self._waiting[event.worker] = (event.report.room, event.report.busy)
            outcomes += self.coordinator.report(event.worker, event.report.deltas)
        elif isinstance(event, Failed):
            then = "it is given up" if event.given_up else "it is started again"
            self._note(f"worker {event.worker} did not start, {then}: {event.reason}")
        elif isinstance(event, Lost):
            held = len(self.coordinator.held(event.worker))
            given_up = self.coordinator.lost(event.worker, event.reason)
            outcomes += given_up
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
