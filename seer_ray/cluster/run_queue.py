"""The requests of one run among several that share workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping, Sequence

from seer_ray.cluster.assignments import Assignments, Outcome
from seer_ray.cluster.breaker import CircuitBreaker
from seer_ray.cluster.deaths import with_log
from seer_ray.cluster.engine_thread import DecodeOptions
from seer_ray.cluster.queue import Unread
from seer_ray.engine.request import Delta, Request
from seer_ray.results.chain import Chain

COUNTERS = (
    "steps",
    "new_tokens",
    "prefill_tokens",
    "step_s",
    "decode_s",
    "decode_bytes",
    "decode_floor_s",
    "preemptions",
    "captured_steps",
    "eager_steps",
    "prefill_s",
    "prefill_attended",
    "prefill_available",
)
"""Of an engine's ``stats``, those that only grow."""


class RunQueue:
    """What is to be decoded with the same options, in rounds that the dispatcher releases one by one.

    Args:
        name: Of the run.
        rounds: Requests of each round, those first that have been begun; they are read when they are near.
            A run of its own has one.
        max_attempts: Failures that make an error row, see ``Assignments``.
        max_deaths: Of workers in a row that end the run, see ``CircuitBreaker``.
        worked: Workers are known to have worked for this run.
        chains: What is known of begun requests, see ``Assignments``.
        options: That workers are to decode with; None: the one that they were built with.
    """

    def __init__(
        self,
        name: str,
        rounds: Iterable[Collection[Request | None]],
        max_attempts: int,
        chains: dict[str, Chain] | None = None,
        options: DecodeOptions | None = None,
        max_deaths: int = 3,
        worked: bool = False,
    ) -> None:
        self.name, self.options = name, options
        self.assignments = Assignments([], max_attempts, chains)
        self.plan = ""
        """Layer plan that decodes, readable; empty before the first report."""
        self.failure: str | None = None
        """Why no worker can decode with the options, or none lives that does."""
        self.stats: dict[str, float] = {}
        """Counters of the engines over all that they did for this run."""
        self.seconds = 0.0
        """Of the engines' steps for this run, over the number of workers: what it would have taken all of
        them together without waiting for anything."""
        self.turns: list[tuple[float, float]] = []
        """(tokens, seconds) of each round that was released: what was done until the next one was."""
        self.held = 0
        """Requests that others keep back until they know whether they are needed: see ``more``."""
        self._rounds = deque(rounds)
        self.unreleased = sum(map(len, self._rounds))
        """Requests in rounds that are not released."""
        self._max_attempts = max_attempts
        self._breaker = CircuitBreaker(max_deaths, worked)
        self._given: dict[str, int] = {}  # deaths that were counted when a worker got its last requests
        self._tried: set[str] = set()  # workers that got requests since the breaker is half open
        self._waiting: dict[str, Container[str]] = {}  # requests that a worker has not begun
        self._given_up: list[Outcome] = []  # until a token shows that it is not the workers' fault

    @property
    def rounds_left(self) -> int:
        """Rounds that are not released."""
        return len(self._rounds)

    @property
    def unfinished(self) -> int:
        return self.assignments.unfinished + self.unreleased + self.held + len(self._given_up)

    @property
    def queued(self) -> int:
        return self.assignments.queued + self.unreleased

    @property
    def running(self) -> int:
        return self.assignments.running

    @property
    def new_tokens(self) -> int:
        return self.assignments.new_tokens

    @property
    def unfinished_tokens(self) -> int:
        """Tokens known of requests that are not done, in the rounds that are released."""
        return self.assignments.unfinished_tokens

    def release(self) -> None:
        """Lets workers have the next round."""
        requests = self._rounds.popleft()
        self.unreleased -= len(requests)
        self.assignments.read(Unread(requests, len(requests)))
        self.turns.append((0.0, 0.0))

    def more(self, requests: Sequence[Request]) -> None:
        """Requests that were held back: workers may have them at once."""
        if self.failure is None:
            self.assignments.add(requests)

    @property
    def half_open(self) -> bool:
        """Workers die, and no token has come since: they are to be tried one at a time."""
        return self._breaker.half_open

    def wants(self, worker: str, workers: int) -> bool:
        """Whether ``dispatch`` would give this worker something if it had room."""
        tried = (other for other in self._tried if other != worker)
        if self._breaker.half_open and any(map(self.assignments.load, tried)):
            return False
        if self._breaker.last_chance and self.assignments.held(worker):
            return False
        return self.assignments.wants(worker, workers)

    def on_trial(self, worker: str) -> bool:
        """Whether a worker holds a request that may kill it."""
        return self.assignments.on_trial(worker)

    def dispatch(self, worker: str, room: int, workers: int) -> list[Request]:
        """What a worker is to do: see ``Assignments.dispatch``."""
        if not self.wants(worker, workers):
            return []
        new = self.assignments.dispatch(worker, room, workers, probe=self._breaker.last_chance)
        if new:
            self._given[worker] = self._breaker.total
            if self._breaker.half_open:
                self._tried.add(worker)
        return new

    def report(
        self, worker: str, deltas: Sequence[Delta], seconds: float, waiting: Container[str] = ()
    ) -> list[Outcome]:
        """Takes in what a worker did that has been ready for so many seconds; what is done now.

        Args:
            waiting: Ids of the requests that it has not begun.
        """
        self._waiting[worker] = waiting
        done = self.assignments.report(worker, deltas)
        if done:
            self._breaker.completed()
        if done or any(delta.tokens for delta in deltas):
            self._breaker.progressed(seconds)
            self._tried.clear()
            done, self._given_up = self._given_up + done, []
        return done

    def lost(
        self, worker: str, reason: str, workers: int, blameless: bool = False, log: Sequence[str] = ()
    ) -> tuple[int, int]:
        """One of so many workers is dead: (requests that it held, those of them that are given up).

        What is given up is done when a token comes from anywhere, or when nothing else is left: until then it
        may be the workers' fault. If it is that, the run has failed.
        """
        waiting, since = self._waiting.pop(worker, ()), self._given.pop(worker, 0)
        self._tried.discard(worker)
        held = len(self.assignments.held(worker))
        problems = {pending.request.problem for pending in self.assignments.suspects(worker, waiting)}
        given_up = self.assignments.lost(worker, reason, waiting, blameless)
        self._given_up += given_up
        bad = {outcome.completion.request.problem for outcome in given_up}
        comparable = self.assignments.seen > 1  # else it may as well be the one request
        tell = held and comparable and not blameless
        if tell and self._breaker.died(problems, held == 1, bad, since, workers):
            self._blame_workers(with_log(reason, log))
        return held, len(given_up)

    def settle(self) -> list[Outcome]:
        """What was given up, once nothing else is left that would tell whose fault it is."""
        if self.assignments.unfinished or self.unreleased or not self._given_up:
            return []
        if self._breaker.convicts and self.assignments.seen > 1:
            self._blame_workers(str(self._given_up[-1].completion.error))
        given_up, self._given_up = self._given_up, []
        return given_up

    def _blame_workers(self, reason: str) -> None:
        self.fail(f"{self._breaker.reason}: {reason}")

    def stop(self) -> None:
        """Gives up what no worker has yet; what is begun is finished."""
        self._forget_rounds()
        self.assignments.drop_queued()

    def _forget_rounds(self) -> None:
        self._rounds.clear()
        self.unreleased = 0

    def fail(self, reason: str) -> None:
        """Gives everything up. What a worker still says of it is ignored."""
        self.failure = self.failure or reason
        self.held = 0
        self._forget_rounds()
        self._given_up.clear()
        tokens, self.assignments = self.assignments.new_tokens, Assignments([], self._max_attempts)
        self.assignments.new_tokens = tokens

    def count(self, before: Mapping[str, float], now: Mapping[str, float], workers: int) -> None:
        """Adds what one of so many engines did between two of its reports."""
        for name in COUNTERS:
            if name in now:
                self.stats[name] = self.stats.get(name, 0) + now[name] - before.get(name, 0)
        seconds = (now.get("step_s", 0.0) - before.get("step_s", 0.0)) / max(1, workers)
        self.seconds += seconds
        if self.turns:
            tokens, spent = self.turns[-1]
            new = now.get("new_tokens", 0) - before.get("new_tokens", 0)
            self.turns[-1] = tokens + new, spent + seconds
