"""Simulated workers with a clock of their own, in place of a Ray cluster: they cost the driver nothing.

The clock stands still while nobody works. It moves on by the CPU time that the driver takes, and by what it
waits for its own processes, which have no more than real time: so workers wait for a slow driver as they
would. While the driver waits for workers it jumps to the next event.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import pickle
import random
import time
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from seer_ray.cluster.engine_thread import Built, DecodeOptions
from seer_ray.cluster.events import Event, Lost, Ready, Reported
from seer_ray.cluster.report import WorkReport
from seer_ray.engine.request import Completion, Counters, Delta, Reading, Request

VOCABULARY = 1000
"""Of the tokens that are generated; which they are costs the driver nothing."""
LAYERS = 28
NORMAL = NormalDist()
NOTICE = 30.0
"""Seconds between a spot node's notice and its end."""


@dataclass(frozen=True)
class Fleet:
    """What is simulated."""

    workers: int
    slots: int = 64
    """Chains that one decodes at a time."""
    rate: float = 30.0
    """Tokens a second of one chain."""
    median: float = 2000.0
    """Tokens of a chain: lognormal, cut at ``most_tokens``."""
    sigma: float = 1.0
    most_tokens: int = 32768
    death_every: float = math.inf
    """Seconds that a worker lives on average."""
    spot: float = 0.0
    """Share of the workers that a cloud takes back after ``spot_every`` seconds on average."""
    spot_every: float = 1800.0
    poison: float = 0.0
    """Share of the requests that kill their worker at their third token."""
    restart: float = 60.0
    """Seconds from a worker's end to the next one's model."""
    seed: int = 0

    def length(self, request: Request) -> int:
        """Tokens of a chain: a function of its id."""
        chance = self.sigma * NORMAL.inv_cdf(self._chance(f"length/{request.id}"))
        return max(
            1, min(self.most_tokens, int(self.median * math.exp(chance)), request.sampling.max_new_tokens)
        )

    def poisonous(self, request: Request) -> bool:
        return self.poison > 0 and self._chance(f"poison/{request.id}") < self.poison

    def _chance(self, text: str) -> float:
        """Between 0 and 1, both not reached."""
        digest = hashlib.blake2b(f"{self.seed}/{text}".encode(), digest_size=6).digest()
        return (int.from_bytes(digest, "little") + 0.5) / 2**48


class VirtualClock:
    """Seconds of the simulation. ``driver`` collects the CPU seconds that the driver took."""

    def __init__(self) -> None:
        self.now, self.driver = 0.0, 0.0
        self.waited: Callable[[], float] = lambda: 0.0
        """Seconds so far that the driver waited for its own processes; who starts a driver sets it."""
        self._mark: float | None = None
        self._waited = 0.0

    def __call__(self) -> float:
        """For the driver."""
        return self.now

    def leave(self) -> None:
        """The driver goes on."""
        self._mark, self._waited = time.process_time(), self.waited()

    def enter(self) -> None:
        """The driver waits, or speaks to a worker."""
        if self._mark is not None:
            spent = time.process_time() - self._mark
            self.now += spent + self.waited() - self._waited
            self.driver, self._mark = self.driver + spent, None


@dataclass
class _Chain:
    request: Request
    length: int
    began: float
    """When its next token would have been its first of this worker."""
    told: int
    known: int
    """Tokens that it came with."""
    ends: float = 0.0
    returned: bool = False
    """It is given back before its end."""


@dataclass
class _Worker:
    name: str
    slots: int
    chains: dict[str, _Chain] = field(default_factory=dict)
    finished: list[_Chain] = field(default_factory=list)
    """That nobody was told of."""
    dies: float = math.inf
    called: bool = False
    """A call is in flight."""
    told: float = 0.0
    """When it told of unfinished chains."""
    due: float = 0.0
    """When it is to do so again."""
    free_since: list[float] = field(default_factory=list)
    """Of each free slot."""
    tokens: int = 0
    generation: int = 0
    """Of its events: those of before are void."""


class SimulatedPool:
    """Stands for ``WorkerPool``; see there.

    Args:
        fleet: What is simulated.
        clock: Is moved on.
        interval: Seconds between two reports, as ``cluster.report_interval``.
    """

    def __init__(self, fleet: Fleet, clock: VirtualClock, interval: float) -> None:
        self.fleet, self.clock, self.report_interval = fleet, clock, interval
        self.size = fleet.workers
        self.waited = self.idle = self.busy = 0.0
        """Slot seconds: free while the driver had requests for them; free while it had none; decoding."""
        self.deaths = 0
        self.reports = 0
        self.crowded = (0.0, 0.0)
        """The clock when requests last waited, and what the driver had taken by then."""
        self.first_dispatch: float | None = None
        """When the first request came, by ``time.perf_counter``."""
        self.queued = lambda: 0
        """How many requests wait; who makes the pool sets it."""
        self._workers: dict[str, _Worker] = {}
        self._events: list[tuple[float, int, str, str]] = []  # a heap of (when, number, what, worker)
        self._leaving: set[str] = set()
        self._number = 0
        self._random = random.Random(fleet.seed)
        self._tokens = np.random.default_rng(fleet.seed).integers(
            0, VOCABULARY, fleet.most_tokens + 65536, dtype=np.int32
        )
        self._text = " ".join(f"{token:03d}" for token in self._tokens[: fleet.most_tokens])
        for place in range(fleet.workers):
            self._at(clock.now, "ready", f"w{place}")

    @property
    def ready(self) -> int:
        return len(self._workers)

    @property
    def starting(self) -> int:
        return self.size - len(self._workers)

    @property
    def alive(self) -> int:
        return self.size

    @property
    def sharing(self) -> int:
        return len(self._workers)

    @property
    def missing(self) -> str:
        return ""

    def leaving(self) -> list[str]:
        """Spot workers that have got their notice."""
        return list(self._leaving)

    def release(self, worker: str) -> None:
        """It holds nothing, and ends; one that leaves with its node has a successor."""
        self.clock.enter()
        self._end(self._workers[worker])
        self.clock.leave()

    def start(self, wanted: int) -> None:
        """They start by themselves."""

    def close(self) -> None:
        """Counts what is left."""
        self.clock.enter()
        for worker in self._workers.values():
            for since in worker.free_since:
                self.idle += self.clock.now - since
        self._workers.clear()

    def work(
        self,
        worker: str,
        new: Sequence[Request],
        seconds: float,
        hungry: bool,
        options: DecodeOptions | None = None,
        back: Sequence[str] = (),
    ) -> None:
        """As of ``WorkerPool``; what is sent is pickled, as Ray does."""
        sent = pickle.dumps((list(new), hungry, options), 5)
        self.clock.enter()
        if new and self.first_dispatch is None:
            self.first_dispatch = time.perf_counter()
        self._take(self._workers[worker], pickle.loads(sent)[0], seconds, hungry, back)
        self.clock.leave()

    def poll(self, seconds: float) -> list[Event]:
        """What happened; moves the clock on to the next event, by up to ``seconds``."""
        self.clock.enter()
        clock, until = self.clock, self.clock.now + seconds
        if self.queued():
            self.crowded = clock.now, clock.driver
        happened: list[Event | tuple[str, bytes]] = []
        while self._events and not happened and self._events[0][0] <= until:
            clock.now = max(clock.now, self._events[0][0])
            while self._events and self._events[0][0] <= clock.now:
                when, _, what, name = heapq.heappop(self._events)
                happened += self._happen(when, what, name)
        if not happened:
            clock.now = until
        self.clock.leave()
        # To unpickle is counted as the driver's.
        return [Reported(e[0], pickle.loads(e[1])) if isinstance(e, tuple) else e for e in happened]

    # -- the simulation ------------------------------------------------------------------------------

    def _at(self, when: float, what: str, worker: str) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what, worker))

    def _after(self, mean: float) -> float:
        return self._random.expovariate(1 / mean) if mean < math.inf else math.inf

    def _happen(self, when: float, what: str, name: str) -> list[Event | tuple[str, bytes]]:
        """What the driver learns of it: events, and reports as they are on the way, with their worker."""
        kind, _, generation = what.partition(":")
        if kind == "ready":
            worker = self._workers[name] = _Worker(name, self.fleet.slots)
            worker.free_since = [self.clock.now] * worker.slots
            dies = self._after(self.fleet.death_every)
            if int(name[1:].partition(".")[0]) % 1000 < 1000 * self.fleet.spot:
                notice = self._after(self.fleet.spot_every)
                self._at(when + notice, "notice", name)
                dies = min(dies, notice + NOTICE)
            if dies < math.inf:
                worker.dies = when + dies
                self._at(worker.dies, "dies", name)
            return [Ready(name, Built(worker.slots, "simulated"))]
        worker_or_none = self._workers.get(name)
        if worker_or_none is None:
            return []
        worker = worker_or_none
        if kind == "notice":
            self._leaving.add(name)
        elif kind == "dies" or (kind == "poison" and generation in worker.chains):
            return [self._die(worker)]
        elif kind == "report" and worker.called and int(generation) == worker.generation:
            return [(name, pickle.dumps(self._report(worker), 5))]
        return []

    def _die(self, worker: _Worker) -> Lost:
        self.deaths += 1
        gone = worker.name in self._leaving
        self._leaving.add(worker.name)
        self._end(worker)
        return Lost(worker.name, "simulated", blameless=gone)

    def _end(self, worker: _Worker) -> None:
        self._free(worker)
        now, queued = self.clock.now, self.queued()
        for since in worker.free_since:
            if queued:
                self.waited += now - since
            else:
                self.idle += now - since
        self.busy += sum(now - chain.began for chain in worker.chains.values())
        del self._workers[worker.name]
        if worker.name in self._leaving:
            self._leaving.remove(worker.name)
            number, _, generation = worker.name.partition(".")
            self._at(self.clock.now + self.fleet.restart, "ready", f"{number}.{int(generation or 0) + 1}")
        else:
            self.size -= 1

    def _take(
        self, worker: _Worker, new: Sequence[Request], seconds: float, hungry: bool, back: Sequence[str]
    ) -> None:
        now = self.clock.now
        if not worker.chains:
            worker.told = now
        self._free(worker)
        for id in back:
            if (given := worker.chains.pop(id, None)) is not None:
                given.returned = True
                worker.finished.append(given)
                worker.free_since.append(now)
                self.busy += now - given.began
        for request in new:
            assert worker.free_since, f"{worker.name}: more requests than slots"
            self.waited += now - worker.free_since.pop()
            known = len(request.progress.tokens)
            chain = _Chain(request, self.fleet.length(request), now, known, known)
            chain.ends = now + (chain.length - known) / self.fleet.rate
            worker.chains[request.id] = chain
            if self.fleet.poisonous(request):
                self._at(now + 3 / self.fleet.rate, f"poison:{request.id}", worker.name)
        worker.called = True
        worker.generation += 1
        worker.due = worker.told + seconds
        ends = min((chain.ends for chain in worker.chains.values()), default=now)
        last = max((chain.ends for chain in worker.chains.values()), default=now)
        until = worker.due
        if back or (hungry and worker.free_since):
            until = now + 1 / self.fleet.rate
        elif hungry:
            until = min(until, ends)
        self._at(max(now, min(until, last)), f"report:{worker.generation}", worker.name)

    def _free(self, worker: _Worker) -> None:
        """Chains that have come to their end leave their slots."""
        now = self.clock.now
        for id in [id for id, chain in worker.chains.items() if chain.ends <= now + 1e-9]:
            chain = worker.chains.pop(id)
            worker.finished.append(chain)
            worker.free_since.append(min(chain.ends, now))
            self.busy += chain.ends - chain.began

    def _report(self, worker: _Worker) -> WorkReport:
        self._free(worker)
        deltas = [self._delta(worker, chain, True) for chain in worker.finished]
        if self.clock.now >= worker.due:
            deltas += [self._delta(worker, chain, False) for chain in worker.chains.values()]
            worker.told = self.clock.now
        worker.finished, worker.called = [], False
        self.reports += 1
        stats = {"steps": self.clock.now * self.fleet.rate, "new_tokens": worker.tokens, "step_s": 0.0}
        return WorkReport(deltas, len(worker.free_since), bool(worker.chains), stats, "simulated")

    def _delta(self, worker: _Worker, chain: _Chain, done: bool) -> Delta:
        at = chain.known + int((self.clock.now - chain.began) * self.fleet.rate)
        whole = done and not chain.returned
        count = chain.length if whole else max(chain.told, min(chain.length - 1, at))
        begin = zlib.crc32(chain.request.id.encode()) % 65536
        tokens = self._tokens[begin + chain.told : begin + count]
        worker.tokens += len(tokens)
        chain.told = count
        read, seconds = 500 * count, count / self.fleet.rate
        counters = Counters(read, 4 * read, 0.1, 0.2, seconds, (read // LAYERS,) * LAYERS)
        delta = Delta(chain.request.id, array("i", tokens.tobytes()), counters)
        if done:
            text = self._text[: 4 * count]
            reading = Reading(text + "</think>7", text, "7", count - 2)
            reason = "stop" if whole else "abort"
            delta.completion = Completion(chain.request, [], "", reason, None, counters, reading=reading)
        return delta
