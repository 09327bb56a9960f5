"""The requests of one run among several that share a fleet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from seer_ray.cluster.coordinator import Coordinator
from seer_ray.cluster.engine_thread import Setting
from seer_ray.engine.request import Request

COUNTERS = (
    "steps",
    "new_tokens",
    "prefill_tokens",
    "step_s",
    "decode_s",
    "decode_bytes",
    "decode_floor_s",
    "preemptions",
)
"""Of an engine's ``stats``, those that only grow."""


class Lane:
    """What is to be decoded with one setting, in rounds that the crew releases one after the other.

    Args:
        name: Of the run.
        rounds: Requests of each round. A run of its own has one.
        max_attempts: Strikes that make an error row, see ``Coordinator``.
        attempts: Workers that had a request in earlier sessions, by request id.
        setting: That workers are to decode with; None: the one that they were built with.
    """

    def __init__(
        self,
        name: str,
        rounds: Iterable[Sequence[Request]],
        max_attempts: int,
        attempts: Mapping[str, int] | None = None,
        setting: Setting | None = None,
    ) -> None:
        self.name, self.setting = name, setting
        self.coordinator = Coordinator([], max_attempts, attempts)
        self.plan = ""
        """Layer plan that decodes, readable; empty before the first report."""
        self.failure: str | None = None
        """Why no worker can have the setting."""
        self.stats: dict[str, float] = {}
        """Counters of the engines over all that they did for this lane."""
        self.seconds = 0.0
        """Of the engines' steps for this lane, over the number of workers: what it would have taken all of
        them together without waiting for anything."""
        self._rounds = deque(rounds)
        self._max_attempts = max_attempts

    @property
    def rounds_left(self) -> int:
        """Rounds that are not released."""
        return len(self._rounds)

    @property
    def unreleased(self) -> int:
        """Requests in them."""
        return sum(map(len, self._rounds))

    @property
    def unfinished(self) -> int:
        return self.coordinator.unfinished + self.unreleased

    @property
    def queued(self) -> int:
        return self.coordinator.queued + self.unreleased

    @property
    def running(self) -> int:
        return self.coordinator.running

    @property
    def new_tokens(self) -> int:
        return self.coordinator.new_tokens

    @property
    def unfinished_tokens(self) -> int:
        """Tokens known of requests that are not done."""
        return self.coordinator.unfinished_tokens + sum(
            len(request.progress.tokens) for requests in self._rounds for request in requests
        )

    def release(self) -> None:
        """Lets workers have the next round."""
        self.coordinator.add(self._rounds.popleft())

    def stop(self) -> None:
        """Gives up what no worker has yet; what is begun is finished."""
        self._rounds.clear()
        self.coordinator.drop_queued()

    def fail(self, reason: str) -> None:
        """Gives everything up. What a worker still says of it is ignored."""
        self.failure = self.failure or reason
        self._rounds.clear()
        tokens, self.coordinator = self.coordinator.new_tokens, Coordinator([], self._max_attempts)
        self.coordinator.new_tokens = tokens

    def count(self, before: Mapping[str, float], now: Mapping[str, float], workers: int) -> None:
        """Adds what one of so many engines did between two of its reports."""
        for name in COUNTERS:
            if name in now:
                self.stats[name] = self.stats.get(name, 0) + now[name] - before.get(name, 0)
        self.seconds += (now.get("step_s", 0.0) - before.get("step_s", 0.0)) / max(1, workers)
