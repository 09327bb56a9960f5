"""Which worker gets which request, and what a lost worker costs. Knows neither Ray nor time nor disks.

Order of dispatch:

1. Chains that have been begun (by a worker that died, or in an earlier session), longest first: all that is
   known of their length is that it is more than that, so they decide when the job ends.
2. New requests in the order they came, the samples of one problem to one worker as far as it has room,
   so that they share the pages of their prompt.
3. Near the end (fewer requests queued than running), the problems whose samples grew longest come first.

A worker never holds more than its share of what is unfinished, so that the first worker that is ready does
not take a small job alone.

Blame: a request gets a strike when a worker dies with it, and a new token clears it. With all but one of its
strikes it must prove itself alone in a worker until its next token, so that nobody becomes an error row for a
mate that kills workers; with ``max_attempts`` strikes it is an error row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from seer_ray.cluster.queue import Chain, Problem, WaitingChains
from seer_ray.engine.request import Completion, Counters, Delta, Request


@dataclass
class Outcome:
    """A request that is done."""

    completion: Completion
    worker: str | None
    """The worker that finished it; None if it was given up."""
    attempts: int
    """Workers that had it, those that died included."""
    told: int = 0
    """Tokens that earlier changes have told of."""
    trace: list[bytes] = field(default_factory=list)
    """Of the tokens after those; empty if the request is not recorded."""


@dataclass
class Change:
    """New tokens of a request that is not done."""

    request_id: str
    offset: int
    """Tokens before these."""
    tokens: list[int]
    counters: Counters
    """After these tokens."""
    attempts: int
    trace: list[bytes] = field(default_factory=list)
    """Of these tokens; empty if the request is not recorded."""


class Coordinator:
    """State of all requests of a job: queued, with a worker, or done."""

    def __init__(
        self, requests: Iterable[Request], max_attempts: int, attempts: Mapping[str, int] | None = None
    ) -> None:
        """
        Args:
            requests: What is to be done; those with progress are continued.
            max_attempts: Strikes that make an error row.
            attempts: Workers that had a request in earlier sessions, by request id.
        """
        self.new_tokens = 0
        """Tokens reported since the coordinator began."""
        self._max_attempts = max_attempts
        self._chains: dict[str, Chain] = {}
        self._problems: dict[str, Problem] = {}
        self._waiting = WaitingChains()
        self._held: dict[str, dict[str, Chain]] = {}
        self._changed: dict[str, Chain] = {}
        self._attempts = dict(attempts or {})
        self._added = 0
        self.add(requests)

    def add(self, requests: Iterable[Request]) -> None:
        """More to do, after what is there."""
        for request in requests:
            if request.id in self._chains:
                raise ValueError(f"request {request.id} came twice")
            problem = self._problems.setdefault(request.problem, Problem())
            chain = Chain(request, self._added, problem, attempts=self._attempts.get(request.id, 0))
            chain.tokens, chain.counters = list(request.progress.tokens), request.progress.counters
            chain.told = len(chain.tokens)
            problem.longest = max(problem.longest, chain.told)
            self._added += 1
            self._chains[request.id] = chain
            self._waiting.add(chain, on_trial=False)

    def drop_queued(self) -> None:
        """Nobody wants what is in the queue any more; what is with workers goes on."""
        for chain in self._waiting.clear():
            self._drop(chain)

    @property
    def unfinished(self) -> int:
        return len(self._chains)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that are with workers."""
        return self.unfinished - self.queued

    @property
    def unfinished_tokens(self) -> int:
        """Tokens known of requests that are not done."""
        return sum(len(chain.tokens) for chain in self._chains.values())

    def held(self, worker: str) -> list[str]:
        """Ids of the requests that are with a worker."""
        return list(self._held.get(worker, ()))

    def changes(self) -> list[Change]:
        """What unfinished requests got since the last call."""
        changes = []
        for id, chain in self._changed.items():
            tokens = chain.tokens[chain.told :]
            changes.append(Change(id, chain.told, tokens, chain.counters, chain.attempts, chain.trace))
            chain.told, chain.trace = len(chain.tokens), []
        self._changed.clear()
        return changes

    def wants(self, worker: str, workers: int) -> bool:
        """Whether ``dispatch`` would give this worker something if it had room."""
        if not self._free_share(worker, workers):
            return False
        return self._waiting.has_other() or (not self.held(worker) and self._waiting.has_trial())

    def dispatch(self, worker: str, room: int, workers: int) -> list[Request]:
        """Takes up to ``room`` requests from the queue and gives them to a worker.

        Args:
            worker: Its name.
            room: Requests it can take.
            workers: Workers that are there or will soon be: each gets its share.
        """
        chosen: list[Chain] = []
        room = min(room, self._free_share(worker, workers))
        if room > 0 and not self.held(worker) and (chain := self._waiting.take_trial()):
            chosen.append(chain)
            room = 0
        while len(chosen) < room:
            chain = self._waiting.take(worker, longest_first=self.queued < self.running)
            if chain is None:
                break
            chosen.append(chain)
        for chain in chosen:
            chain.worker = worker
            chain.attempts += 1
            self._held.setdefault(worker, {})[chain.request.id] = chain
        return [replace(chain.request, progress=chain.progress()) for chain in chosen]

    def report(self, worker: str, deltas: Iterable[Delta]) -> list[Outcome]:
        """Takes in what a worker did. What it says of requests that it does not hold is ignored."""
        outcomes = []
        for delta in deltas:
            chain = self._held.get(worker, {}).get(delta.request_id)
            if chain is None:
                continue
            if delta.tokens:
                chain.tokens.extend(delta.tokens)
                chain.trace.extend(delta.trace)
                chain.strikes = 0
                chain.problem.longest = max(chain.problem.longest, len(chain.tokens))
                self.new_tokens += len(delta.tokens)
                self._changed[delta.request_id] = chain
            if delta.counters is not None:
                chain.counters = delta.counters
            if delta.completion is not None:
                self._drop(chain)
                completion = replace(delta.completion, request=chain.request)
                outcomes.append(_outcome(completion, chain, worker))
        return outcomes

    def lost(self, worker: str, reason: str) -> list[Outcome]:
        """A worker is dead: its requests go back to the queue, or become error rows."""
        outcomes = []
        self._waiting.forget(worker, self._problems)
        for chain in list(self._held.get(worker, {}).values()):
            chain.strikes += 1
            if chain.strikes >= self._max_attempts:
                self._drop(chain)
                outcomes.append(_outcome(_given_up(chain, reason), chain, None))
            else:
                del self._held[worker][chain.request.id]
                self._waiting.add(chain, self._on_trial(chain))
        self._held.pop(worker, None)
        return outcomes

    def _on_trial(self, chain: Chain) -> bool:
        return chain.strikes > 0 and chain.strikes == self._max_attempts - 1

    def _free_share(self, worker: str, workers: int) -> int:
        """How many more requests a worker may hold."""
        held = self._held.get(worker, {})
        if any(self._on_trial(chain) for chain in held.values()):
            return 0
        share = -(-self.unfinished // max(1, workers))
        return max(0, share - len(held))

    def _drop(self, chain: Chain) -> None:
        del self._chains[chain.request.id]
        self._changed.pop(chain.request.id, None)
        if chain.worker is not None:
            del self._held[chain.worker][chain.request.id]


def _outcome(completion: Completion, chain: Chain, worker: str | None) -> Outcome:
    return Outcome(completion, worker, chain.attempts, chain.told, chain.trace)


def _given_up(chain: Chain, reason: str) -> Completion:
    times = "once" if chain.strikes == 1 else f"{chain.strikes} times in a row"
    return Completion(
        request=chain.request,
        tokens=list(chain.tokens),
        text="",
        finish_reason="error",
        error=f"its worker died {times} before another token came; the last time: {reason}",
        counters=chain.counters,
    )
