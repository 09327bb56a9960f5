"""An engine in a thread of its own: it steps while requests and reports come and go beside it."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from seer_ray.cluster.report import WorkReport
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.engine.request import Delta, Request


@dataclass(frozen=True)
class DecodeOptions:
    """How requests are decoded: all that may change while a model stays loaded."""

    engine: EngineConfig
    selector: SelectorConfig
    plan: PlanConfig
    marks: tuple[str, ...] | None = field(default=None, compare=False)
    """Around the reasoning, for who reads completions: ``task.thinking_marks``."""


class LayerPlan(Protocol):
    @property
    def id(self) -> str:
        """Which attention each layer uses, readable."""


class Steppable(Protocol):
    """What the loop needs of an engine: ``seer_ray.engine.Engine`` and its stand-ins in tests. One that has
    ``slow`` says there why it decodes slower than it might."""

    @property
    def plan_id(self) -> str: ...

    @property
    def busy(self) -> bool: ...

    def submit(self, request: Request) -> None: ...

    def abort(self, request_id: str) -> None:
        """Give a request up; its completion, with the tokens so far, comes with the next step."""

    def step(self, tell: bool = True) -> list[Delta]:
        """One step; unless it is to ``tell`` all, what chains have come to may wait for a later one."""

    def room(self) -> int: ...

    def waiting(self) -> list[str]:
        """Requests of which nothing is being computed."""

    def stats(self) -> dict[str, float]: ...

    def configure(self, settings: EngineConfig, selector: SelectorConfig, plan: PlanConfig) -> None:
        """Other options from now on, between requests. Raises ConfigError; those of before stay then."""

    def warm_up(self) -> None:
        """What happens once happens now, and is in no counter."""


@dataclass
class Built:
    """An engine that is ready."""

    room: int
    plan: str
    """How it decodes, readable: its layer plan, and what drafts."""
    niceness: int = 0
    """By which Ray has lowered the worker's priority."""
    node: str | None = None
    """Where the worker is, as Ray names it."""
    note: str | None = None
    """What a person should know of it, in a line."""


class EngineLoop:
    """Builds an engine in a thread and steps it there for as long as it has work.

    The engine never waits for whoever feeds it: requests wait in an inbox for the next step, reports in an
    outbox for the next ``exchange``.
    """

    def __init__(self, build: Callable[[], Steppable], options: DecodeOptions | None = None) -> None:
        """
        Args:
            build: Makes the engine.
            options: It is made with these.
        """
        self._changed = threading.Condition()
        self._wanted = self._current = options
        self._refused: str | None = None
        self._inbox: list[Request] = []
        self._back: list[str] = []  # ids of requests to be given back
        self._outbox: dict[str, Delta] = {}
        self._done: list[Delta] = []
        self._told = time.monotonic()  # of the tokens of unfinished chains
        self._plan: str | None = None
        self._slow: str | None = None
        self._failure: BaseException | None = None
        self._steps = 0
        self._interval = 0.0  # seconds between two reports of unfinished chains
        self._fresh = False  # a step has told of them since they were due
        self._posted = 0  # requests that came into the inbox
        self._seen = 0  # requests that room and busy know of
        self._room, self._busy, self._stats = 0, False, dict[str, float]()
        self._waiting: list[str] = []
        threading.Thread(target=self._run, args=(build,), name="engine", daemon=True).start()

    @property
    def marks(self) -> tuple[str, ...] | None:
        """Of the options that are wanted now."""
        return self._wanted.marks if self._wanted is not None else None

    def wait_until_built(self) -> Built:
        """What was built. Raises what the builder raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._plan is not None or self._failure is not None)
            self._raise_failure()
            return Built(self._room, str(self._plan), note=self._slow)

    def exchange(
        self,
        new: Iterable[Request],
        seconds: float,
        hungry: bool,
        options: DecodeOptions | None = None,
        back: Collection[str] = (),
    ) -> WorkReport:
        """Hands requests in and takes a report out.

        They are decoded with ``options`` (None: as those before), which may change when there are no others.
        Of the requests in ``back`` the report has a completion, ``abort`` where they were not done.

        Comes back when the engine has nothing to do, or as soon as it has room and the caller is ``hungry``
        (has more requests for it): with what is done. And when it has not told of unfinished chains for
        ``seconds``: with their tokens too. Never before a step is done while there is work:
        an engine that hangs keeps its caller waiting, who takes the silence for what it is.

        Raises:
            Exception: what the engine raised; it is of no use any more.
        """
        with self._changed:
            if not self._outbox and not self._busy:
                self._told = time.monotonic()
            deadline = self._told + seconds
            arrived = list(new)
            self._inbox += arrived
            self._wanted = options or self._wanted
            self._back += back
            self._interval = seconds
            self._posted += len(arrived) + len(back)
            self._changed.notify_all()
            begun = self._steps
            while self._failure is None and (self._seen < self._posted or self._busy):
                rest: float | None = None
                if self._steps > begun and self._seen == self._posted:
                    rest = deadline - time.monotonic()
                    if (rest <= 0 and self._fresh) or back or (hungry and self._room > 0):
                        break
                    rest = rest if rest > 0 else None
                self._changed.wait(rest)
            self._raise_failure()
            deltas, self._done = self._done, []
            if (now := time.monotonic()) >= deadline and self._fresh:
                deltas += self._outbox.values()
                self._outbox, self._told, self._fresh = {}, now, False
            refused, self._refused = self._refused, None
            state = self._room, self._busy, self._stats, str(self._plan), self._waiting
            return WorkReport(deltas, *state, refused)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self, build: Callable[[], Steppable]) -> None:
        try:
            engine = build()
            engine.warm_up()
            self._slow = getattr(engine, "slow", None)
            self._publish(engine, [], 0)
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._inbox or self._back or engine.busy)
                    new, self._inbox = self._inbox, []
                    back, self._back = self._back, []
                for id in back:
                    engine.abort(id)
                if not self._configured(engine):
                    self._publish(engine, [], len(new) + len(back))
                    continue
                for request in new:
                    engine.submit(request)
                tell = self._due()
                deltas = engine.step(tell) if engine.busy else []
                self._publish(engine, deltas, len(new) + len(back), tell)
        except BaseException as failure:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _due(self) -> bool:
        """Whether a caller is to hear of unfinished chains: to tell costs more than a step's host work does
        otherwise."""
        return time.monotonic() >= self._told + self._interval

    def _configured(self, engine: Steppable) -> bool:
        """Whether the engine has the options that are wanted, now."""
        wanted = self._wanted
        if wanted is not None and wanted != self._current:
            try:
                engine.configure(wanted.engine, wanted.selector, wanted.plan)
                engine.warm_up()
            except ConfigError as error:
                self._refused, self._current = str(error), None
                return False
            self._current = wanted
        return True

    def _publish(self, engine: Steppable, deltas: list[Delta], submitted: int, told: bool = False) -> None:
        with self._changed:
            self._fresh |= told
            for delta in deltas:
                merged = merge(self._outbox.pop(delta.request_id, None), delta)
                if merged.completion is not None:
                    self._done.append(merged)
                else:
                    self._outbox[delta.request_id] = merged
            self._room, self._busy, self._stats = engine.room(), engine.busy, engine.stats()
            self._waiting = engine.waiting()
            self._seen += submitted
            self._steps += 1
            self._plan = engine.plan_id
            self._changed.notify_all()


def merge(first: Delta | None, second: Delta) -> Delta:
    """Two consecutive deltas of a request as one, which may be the first."""
    if first is None:
        tokens = array("i", second.tokens)
        return replace(second, tokens=tokens, trace=list(second.trace), logprobs=list(second.logprobs))
    assert isinstance(first.tokens, array)
    first.tokens.extend(second.tokens)
    first.trace += second.trace
    first.logprobs += second.logprobs
    first.counters, first.completion = second.counters or first.counters, second.completion
    return first
