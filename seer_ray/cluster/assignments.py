"""Which worker has which request of a run, and what a lost worker costs. Knows neither Ray nor time.

Order of dispatch:

1. Requests that have been begun (by a worker that died, or in an earlier session), longest first: all that is
   known of their length is that it is more than that, so they decide when the job ends.
2. New requests in the order they came, the samples of one problem to one worker as far as it has room,
   so that they share the pages of their prompt.
3. Near the end (fewer requests queued than running), the problems whose samples grew longest come first.

A worker never holds more than its share of what is unfinished, so that the first worker that is ready does
not take a small job alone.

Retries: a request fails when a worker dies with it, and a new token makes up for all failures. With all but
one of the failures that it may have it is on trial: alone in a worker until its next token, so that nobody
becomes an error row for a mate that kills workers. With ``max_attempts`` failures it is given up. What a
worker gets after that is a request of another problem, alone: it shows whether workers work at all.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from seer_ray.cluster.queue import AHEAD, Pending, RequestQueue, Unread
from seer_ray.engine.request import Completion, Delta, Progress, Request
from seer_ray.results.chain import Chain


@dataclass
class Outcome:
    """A request that is done."""

    completion: Completion
    worker: str | None
    """The worker that finished it; None if it was given up."""
    attempts: int
    """Workers that had it, those that died included."""
    trace: list[bytes] = field(default_factory=list)
    """Of its tokens from the first on; empty if the request is not recorded."""


class Assignments:
    """State of all requests of a run: queued, with a worker, or done.

    Args:
        requests: What is to be done; those with progress are continued.
        max_attempts: Failures that make an error row.
        chains: What is known of begun requests, by id. Kept up to date as tokens come, for the progress log;
            what is done stays as it was before its last report.
    """

    def __init__(
        self, requests: Iterable[Request], max_attempts: int, chains: dict[str, Chain] | None = None
    ) -> None:
        self.new_tokens = 0
        """Tokens reported since the beginning."""
        self.unfinished_tokens = 0
        """Tokens known of requests that are not done."""
        self._max_attempts = max_attempts
        self._chains = {} if chains is None else chains
        self._unfinished: dict[str, Pending] = {}
        self._queue = RequestQueue()
        self._unread: deque[Unread] = deque()
        self._to_read = 0
        """Requests in them."""
        self._held: dict[str, dict[str, Pending]] = {}
        self._added = 0
        self._doubt = False
        """A request was given up, and none was tried since: was it the worker's fault?"""
        self.add(requests)

    def add(self, requests: Iterable[Request]) -> None:
        """More to do, after what is there."""
        for request in requests:
            if request.id in self._unfinished:
                raise ValueError(f"request {request.id} came twice")
            problem = self._queue.problem(request.problem)
            chain = self._chains.get(request.id) or Chain.of(request.progress)
            problem.unfinished += 1
            self._queue.grew(problem, len(chain.tokens))
            self.unfinished_tokens += len(chain.tokens)
            pending = self._unfinished[request.id] = Pending(request, self._added, problem, chain)
            self._added += 1
            self._queue.add(pending, on_trial=False)

    def read(self, requests: Unread) -> None:
        """More to do, after what is there; they are read when they are near."""
        self._unread.append(requests)
        self._to_read += requests.left
        self._read_on(0)

    def _read_on(self, wanted: int) -> None:
        """So many requests are in the queue, and some more, if there are."""
        if not self._unread or len(self._queue) >= max(AHEAD // 2, wanted):
            return
        for request in self._reading():
            self.add((request,))
            if len(self._queue) >= AHEAD + wanted:
                return

    def _reading(self) -> Iterator[Request]:
        while self._unread:
            before = self._unread[0].left
            for request in self._unread[0]:
                self._to_read -= before - self._unread[0].left
                before = self._unread[0].left
                yield request
            self._to_read -= before - self._unread[0].left
            self._unread.popleft()

    def drop_queued(self) -> None:
        """Nobody wants what is in the queue any more; what is with workers goes on."""
        self._unread.clear()
        self._to_read = 0
        for pending in self._queue.clear():
            self._drop(pending)

    @property
    def unfinished(self) -> int:
        return len(self._unfinished) + self._to_read

    @property
    def queued(self) -> int:
        return len(self._queue) + self._to_read

    @property
    def running(self) -> int:
        """Requests that are with workers."""
        return self.unfinished - self.queued

    @property
    def problems_seen(self) -> int:
        """Problems of all requests, done or not; of those that are not read yet, the samples."""
        return self._queue.problems + self._to_read

    def held(self, worker: str) -> list[str]:
        """Ids of the requests that are with a worker."""
        return list(self._held.get(worker, ()))

    def problems(self, worker: str) -> set[str]:
        """Of the requests that are with a worker."""
        return {pending.request.problem for pending in self._held.get(worker, {}).values()}

    def wants(self, worker: str, workers: int) -> bool:
        """Whether ``dispatch`` would give this worker something if it had room."""
        if not self._free_share(worker, workers):
            return False
        self._read_on(0)
        return self._queue.has_other() or (not self._held.get(worker) and self._queue.has_trial())

    def dispatch(self, worker: str, room: int, workers: int) -> list[Request]:
        """Takes up to ``room`` requests from the queue and gives them to a worker.

        Args:
            worker: Its name.
            room: Requests it can take.
            workers: Workers that are there or will soon be: each gets its share.
        """
        chosen: list[Pending] = []
        room = min(room, self._free_share(worker, workers))
        # Near the end all that is left must be there, to tell which is longest.
        self._read_on(self.queued if (last := self.queued < self.running) else max(0, room))
        if room > 0 and not self._held.get(worker):
            alone = self._queue.take_unlike() if self._doubt else None
            if alone := alone or self._queue.take_trial():
                chosen.append(alone)
                self._doubt, room = False, 0
        while len(chosen) < room:
            pending = self._queue.take(worker, longest_first=last)
            if pending is None:
                break
            chosen.append(pending)
        for pending in chosen:
            pending.worker = worker
            pending.chain.attempts += 1
            self._held.setdefault(worker, {})[pending.request.id] = pending
        return [_continued(pending) for pending in chosen]

    def report(self, worker: str, deltas: Iterable[Delta]) -> list[Outcome]:
        """Takes in what a worker did. What it says of requests that it does not hold is ignored."""
        outcomes = []
        for delta in deltas:
            pending = self._held.get(worker, {}).get(delta.request_id)
            if pending is None:
                continue
            request, problem, chain = pending.request, pending.problem, pending.chain
            self.new_tokens += len(delta.tokens)
            self._queue.grew(problem, len(chain.tokens) + len(delta.tokens))
            if delta.completion is not None:
                self._drop(pending)
                tokens = chain.tokens + array("i", delta.tokens)
                logprobs = chain.logprobs + delta.logprobs
                completion = replace(delta.completion, request=request, tokens=tokens, logprobs=logprobs)
                outcomes.append(Outcome(completion, worker, chain.attempts, chain.traced(delta.trace)))
                continue
            chain.extend(delta.tokens, delta.counters or chain.counters, delta.trace, delta.logprobs)
            self.unfinished_tokens += len(delta.tokens)
            if delta.tokens:
                pending.failures = 0
                self._chains[request.id] = chain
        return outcomes

    def lost(self, worker: str, reason: str) -> list[Outcome]:
        """A worker is dead: its requests go back to the queue, or are given up."""
        outcomes = []
        self._queue.forget(worker)
        for pending in list(self._held.get(worker, {}).values()):
            pending.failures += 1
            if pending.failures >= self._max_attempts:
                self._drop(pending)
                self._queue.suspect(pending.problem)
                self._doubt = True
                outcomes.append(_given_up(pending, reason))
            else:
                self._queue.add(pending, self._on_trial(pending))
        self._held.pop(worker, None)
        return outcomes

    def _on_trial(self, pending: Pending) -> bool:
        return pending.failures > 0 and pending.failures == self._max_attempts - 1

    def _free_share(self, worker: str, workers: int) -> int:
        """How many more requests a worker may hold."""
        held = self._held.get(worker, {})
        # On trial it is alone.
        if len(held) == 1 and any(self._on_trial(pending) for pending in held.values()):
            return 0
        share = -(-self.unfinished // max(1, workers))
        return max(0, share - len(held))

    def _drop(self, pending: Pending) -> None:
        del self._unfinished[pending.request.id]
        self.unfinished_tokens -= len(pending.chain.tokens)
        self._queue.done(pending.problem)
        if pending.worker is not None:
            del self._held[pending.worker][pending.request.id]


def _continued(pending: Pending) -> Request:
    """The request for the next worker."""
    if not pending.chain.tokens and pending.request.progress == Progress():
        return pending.request
    return replace(pending.request, progress=pending.chain.progress)


def _given_up(pending: Pending, reason: str) -> Outcome:
    chain = pending.chain
    times = "once" if pending.failures == 1 else f"{pending.failures} times in a row"
    completion = Completion(
        request=pending.request,
        tokens=chain.tokens,
        text="",
        finish_reason="error",
        error=f"its worker died {times} before another token came; the last time: {reason}",
        counters=chain.counters,
    )
    return Outcome(completion, None, chain.attempts, chain.traced())
