"""Which worker has which request of a run, and what a lost worker costs. Knows neither Ray nor time.

Order of dispatch:

1. Requests that have been begun (by a worker that died, or in an earlier session), longest first: all that is
   known of their length is that it is more than that, so they decide when the job ends.
2. New requests in the order they came, the samples of one problem to one worker as far as it has room,
   so that they share the pages of their prompt.
3. Near the end (fewer requests queued than running), the problems whose samples grew longest come first.

A worker never holds more than its share of what is unfinished, so that the first worker that is ready does
not take a small job alone.

Retries: a worker that dies makes suspects, until their next token, of the requests that had brought none
since it got them; the others go on at once, and what only waited in it is spared once. Suspects are tried
one by one, see ``suspects``: no two of them are in one worker, and a death that one may explain is no
failure of the others. A request is given up when ``max_attempts`` workers have died with it in a row, the
last one with it alone. Another of the same problem then is given up when a worker dies with it alone.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Container, Iterable, Iterator
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
        self._trying: dict[str, Pending] = {}
        """The suspect that a worker holds."""
        self._added = 0
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
            self._queue.add(pending)

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
    def seen(self) -> int:
        """Requests so far, done or not."""
        return self._added + self._to_read

    def held(self, worker: str) -> list[str]:
        """Ids of the requests that are with a worker."""
        return list(self._held.get(worker, ()))

    def load(self, worker: str) -> int:
        """Requests that are with a worker."""
        return len(self._held.get(worker, ()))

    def suspects(self, worker: str, waiting: Container[str] = ()) -> list[Pending]:
        """Those of the requests that are with a worker that may be to blame if it dies.

        Args:
            worker: Its name.
            waiting: Ids of those that it had not begun.
        """
        if worker in self._trying:
            return [self._trying[worker]]
        held = list(self._held.get(worker, {}).values())
        if len(held) == 1:
            return held
        return [p for p in held if not p.proven and (p.spared or p.request.id not in waiting)]

    def on_trial(self, worker: str) -> bool:
        """Whether a worker holds a suspect."""
        return worker in self._trying

    def movable(self, worker: str) -> list[str]:
        """Ids of the requests that a worker may give back, those first that lose least."""
        held = [p for p in self._held.get(worker, {}).values() if not p.failures and not p.moved]
        return [p.request.id for p in sorted(held, key=lambda p: (len(p.chain.tokens), -p.order))]

    def wants(self, worker: str, workers: int) -> bool:
        """Whether ``dispatch`` would give this worker something if it had room."""
        if not self._free_share(worker, workers):
            return False
        self._read_on(0)
        queue = self._queue
        return queue.has_other() or queue.suspects.has(not self._held.get(worker), not queue.has_other())

    def dispatch(self, worker: str, room: int, workers: int, probe: bool = False) -> list[Request]:
        """Takes up to ``room`` requests from the queue and gives them to a worker.

        Args:
            worker: Its name.
            room: Requests it can take.
            workers: Workers that are there or will soon be: each gets its share.
            probe: It is to show whether workers work at all.
        """
        chosen: list[Pending] = []
        queue, empty = self._queue, not self._held.get(worker)
        room = min(room, self._free_share(worker, workers))
        # Near the end all that is left must be there, to tell which is longest.
        self._read_on(self.queued if (last := self.queued < self.running) else max(0, room))
        if probe:
            room = min(room, 1) if empty else 0
        if room > 0:
            take = queue.take_unlike() if probe else queue.suspects.take(empty, not queue.has_other())
            if take is not None:
                chosen.append(take)
                room = 0
        while len(chosen) < room:
            pending = queue.take(worker, longest_first=last)
            if pending is None:
                break
            chosen.append(pending)
        for pending in chosen:
            pending.worker = worker
            pending.chain.attempts += 1
            pending.proven = False
            self._held.setdefault(worker, {})[pending.request.id] = pending
            if pending.failures:
                self._trying[worker] = pending
        return [_continued(pending) for pending in chosen]

    def report(self, worker: str, deltas: Iterable[Delta]) -> list[Outcome]:
        """Takes in what a worker did; what it gave back is in the queue again. What it says of requests that
        it does not hold is ignored."""
        outcomes, held = [], self._held.get(worker, {})
        for delta in deltas:
            pending = held.get(delta.request_id)
            if pending is None:
                continue
            request, problem, chain = pending.request, pending.problem, pending.chain
            self.new_tokens += len(delta.tokens)
            if (length := len(chain.tokens) + len(delta.tokens)) > problem.longest:
                self._queue.grew(problem, length)
            returned = delta.completion is not None and delta.completion.finish_reason == "abort"
            if self._trying and (delta.tokens or delta.completion is not None):
                self._cleared(pending)
            if delta.completion is not None and not returned:
                self._drop(pending)
                tokens = chain.tokens + array("i", delta.tokens)
                logprobs = chain.logprobs + delta.logprobs
                completion = replace(delta.completion, request=request, tokens=tokens, logprobs=logprobs)
                outcomes.append(Outcome(completion, worker, chain.attempts, chain.traced(delta.trace)))
                continue
            chain.extend(delta.tokens, delta.counters or chain.counters, delta.trace, delta.logprobs)
            self.unfinished_tokens += len(delta.tokens)
            if delta.tokens:
                pending.failures, pending.proven = 0, True
                pending.spared = pending.moved = False
                self._chains[request.id] = chain
            if returned:
                pending.moved = True
                del self._held[worker][request.id]
                self._requeue(pending)
        return outcomes

    def lost(
        self, worker: str, reason: str, waiting: Container[str] = (), blameless: bool = False
    ) -> list[Outcome]:
        """A worker is dead: its requests go back to the queue, or are given up.

        Args:
            worker: Its name.
            reason: Why, as far as it is known.
            waiting: Ids of the requests that it had not begun.
            blameless: No request is to blame: its node went, or it was told to go.
        """
        outcomes, queue = [], self._queue
        queue.forget(worker)
        held = list(self._held.get(worker, {}).values())
        suspects = set() if blameless else {p.request.id for p in self.suspects(worker, waiting)}
        for pending in held:
            if pending.request.id in suspects:
                pending.failures, pending.spared = pending.failures + 1, False
                enough = 1 if pending.problem.convicted else self._max_attempts
                if len(held) == 1 and pending.failures >= enough:
                    self._drop(pending)
                    queue.convict(pending.problem)
                    outcomes.append(_given_up(pending, reason))
                    continue
            elif pending.request.id in waiting and not blameless:
                pending.spared = True
            self._requeue(pending)
        self._held.pop(worker, None)
        self._trying.pop(worker, None)
        return outcomes

    def _cleared(self, pending: Pending) -> None:
        """A worker got on with it, or holds it no more."""
        if pending.worker is not None and self._trying.get(pending.worker) is pending:
            del self._trying[pending.worker]

    def _requeue(self, pending: Pending) -> None:
        pending.worker = None
        if pending.failures:
            self._queue.suspects.add(pending, alone=pending.failures >= self._max_attempts - 1)
        else:
            self._queue.add(pending)

    def _free_share(self, worker: str, workers: int) -> int:
        """How many more requests a worker may hold."""
        held = self._held.get(worker, {})
        if worker in self._trying:
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
