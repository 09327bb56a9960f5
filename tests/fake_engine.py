"""An engine without a model: token n of a request is a function of (seed, problem, sample, n) alone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from seer_ray.cluster.connect import connected
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ClusterConfig, EngineConfig, PlanConfig, RunConfig, SelectorConfig
from seer_ray.engine.request import Completion, Counters, Delta, Request, SamplingParams
from seer_ray.engine.trace import TraceEncoder


def token_at(request: Request, position: int) -> int:
    text = f"{request.seed}/{request.problem}/{request.sample}/{position}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=2).digest(), "little") % 1000


def expected_tokens(request: Request) -> list[int]:
    return [token_at(request, position) for position in range(request.sampling.max_new_tokens)]


def trace_at(request: Request, position: int) -> bytes:
    """What the step of a token attended: an entry of a trace that needs none before it."""
    blocks = (len(request.prompt) - 1 + position) // 16 + 1
    seen = [[[token_at(request, position + block) % 2 == 0]] for block in range(blocks)]
    return TraceEncoder(16).add(np.array(seen))


def make_request(problem: str, sample: int = 0, length: int = 8, **changes: object) -> Request:
    request = Request(f"{problem}/{sample}", (1, 2, 3), SamplingParams(length), 0, problem, sample)
    return replace(request, **changes)  # type: ignore[arg-type]


@dataclass
class FakeEngine:
    """Continuous batching over ``rows`` rows. What a problem's id begins with says what it does to a worker:

    ``raise`` fails the engine, ``kill`` ends the process, ``crash`` does so by a fault, ``hang`` stops
    stepping: all at its third token.
    """

    rows: int = 4
    step_s: float = 0.0
    waiting_requests: deque[Request] = field(default_factory=deque)
    running: dict[str, tuple[Request, list[int]]] = field(default_factory=dict)
    aborted: list[Delta] = field(default_factory=list)
    steps: int = 0
    produced: int = 0
    seconds: float = 0.0
    most_running: int = 0
    pages: float = 0.0
    plan_id: str = "fake"

    def submit(self, request: Request) -> None:
        assert request.id not in self.running
        self.waiting_requests.append(request)

    def abort(self, request_id: str) -> None:
        found = [request for request in self.waiting_requests if request.id == request_id]
        for request in found:
            self.waiting_requests.remove(request)
        request, tokens = self.running.pop(request_id, (found[0] if found else None, []))
        if request is not None:
            ended = Completion(request, list(tokens), "", "abort")
            self.aborted.append(Delta(request_id, counters=None, completion=ended))

    @property
    def busy(self) -> bool:
        return bool(self.waiting_requests or self.running or self.aborted)

    def room(self) -> int:
        return max(0, self.rows - len(self.waiting_requests) - len(self.running))

    def waiting(self) -> list[str]:
        return [request.id for request in self.waiting_requests]

    def stats(self) -> dict[str, float]:
        return {"steps": self.steps, "new_tokens": self.produced, "step_s": self.seconds, "pages": self.pages}

    def warm_up(self) -> None: ...

    def configure(self, settings: EngineConfig, selector: SelectorConfig, plan: PlanConfig) -> None:
        assert not self.busy, "configured with requests in it"
        if selector.name == "seer":
            raise ConfigError("model.gates: none given")
        self.plan_id = f"fake-{selector.name}{selector.budget}"

    def step(self, tell: bool = True) -> list[Delta]:
        while self.waiting_requests and len(self.running) < self.rows:
            request = self.waiting_requests.popleft()
            self.running[request.id] = (request, list(request.progress.tokens))
        self.most_running = max(self.most_running, len(self.running))
        if self.step_s:
            time.sleep(self.step_s)
        self.seconds += self.step_s
        self.steps += 1
        aborted, self.aborted = self.aborted, []
        return aborted + [self._advance(request, tokens) for request, tokens in list(self.running.values())]

    def _advance(self, request: Request, tokens: list[int]) -> Delta:
        if len(tokens) == 2:
            if request.problem.startswith("raise"):
                raise IndexError(f"no page for {request.problem}")
            if request.problem.startswith("kill"):
                os._exit(9)
            if request.problem.startswith("crash"):
                faulthandler.enable()
                ctypes.string_at(0)
            if request.problem.startswith("hang"):
                time.sleep(3600)
        tokens.append(token_at(request, len(tokens)))
        self.produced += 1
        delta = Delta(request.id, tokens[-1:], Counters(10 * len(tokens), 20 * len(tokens)))
        if request.record:
            delta.trace = [trace_at(request, len(tokens) - 1)]
        if len(tokens) == request.sampling.max_new_tokens:
            del self.running[request.id]
            delta.completion = Completion(
                request, list(tokens), "", "length", None, delta.counters or Counters()
            )
        return delta


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of this process, whose workers know this module."""
    with connected(ClusterConfig(address="local")):
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def build_fake(config: RunConfig) -> FakeEngine:
    return FakeEngine(config.engine.max_batch or 16, step_s=0.002)


class RefusingEngine(FakeEngine):
    """Has no room for any prompt."""

    def _advance(self, request: Request, tokens: list[int]) -> Delta:
        del self.running[request.id]
        return Delta(request.id, completion=Completion(request, [], "", "error", "the prompt is too long"))


def build_refusing(config: RunConfig) -> FakeEngine:
    return RefusingEngine(config.engine.max_batch or 16, step_s=0.002)


def build_slow(config: RunConfig) -> FakeEngine:
    return FakeEngine(config.engine.max_batch or 16, step_s=0.02)


@dataclass
class StuckEngine(FakeEngine):
    """Decodes ``most`` tokens of problem c and no more, and goes on reporting what is done."""

    most: int = 0

    def _advance(self, request: Request, tokens: list[int]) -> Delta:
        if request.problem == "c" and len(tokens) >= self.most:
            time.sleep(0.02)
            return Delta(request.id)
        return super()._advance(request, tokens)


def build_stuck_at_c(config: RunConfig) -> FakeEngine:
    return StuckEngine(config.engine.max_batch or 16, step_s=0.002)


def build_stuck_within_c(config: RunConfig) -> FakeEngine:
    return StuckEngine(config.engine.max_batch or 16, step_s=0.002, most=10)


def build_misconfigured(config: RunConfig) -> FakeEngine:
    raise ConfigError("model.gates=nothing: no gates there")


def build_broken(config: RunConfig) -> FakeEngine:
    raise OSError("weights are torn")


def build_hanging(config: RunConfig) -> FakeEngine:
    time.sleep(3600)
    raise AssertionError


def build_broken_at_first(config: RunConfig) -> FakeEngine:
    """Fails in whoever comes first: only one process can make the folder."""
    try:
        os.mkdir(config.results.folder)
    except FileExistsError:
        return build_fake(config)
    raise OSError("weights are torn")


MENDED = "mended"
"""File in the folder of the results."""


@dataclass
class FrailEngine(FakeEngine):
    """Decodes problems a and b; any other ends its process, until it is mended."""

    folder: str = ""

    def _advance(self, request: Request, tokens: list[int]) -> Delta:
        if request.problem not in ("a", "b") and not os.path.exists(os.path.join(self.folder, MENDED)):
            os._exit(9)
        return super()._advance(request, tokens)


def build_until_mended(config: RunConfig) -> FakeEngine:
    return FrailEngine(config.engine.max_batch or 16, step_s=0.002, folder=config.results.folder)
