"""One engine on several ranks: each does all that the first one is told, with its own part of the model.

Schedulers and samplers decide by requests and tokens alone, so the ranks take the same steps. Only what comes
from outside has to be passed on.
"""

from __future__ import annotations

import zlib
from typing import Any, NoReturn

from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.engine.engine import Engine
from seer_ray.engine.request import Delta, Request


class Rank:
    """An engine whose tokens are kept track of: those of all ranks must be the same."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.group = engine.model.group
        self.trail = 0
        """Hash of all tokens so far."""

    def do(self, method: str, *args: Any) -> Any:
        result = getattr(self.engine, method)(*args)
        if method == "step":
            tokens = repr([(delta.request_id, delta.tokens) for delta in result])
            self.trail = zlib.crc32(tokens.encode(), self.trail)
        return result


class Leader:
    """The engine of rank 0, as whoever feeds it sees it. The others are in ``follow``."""

    def __init__(self, engine: Engine) -> None:
        self._rank = Rank(engine)
        self._engine = engine

    def submit(self, request: Request) -> None:
        self._all("submit", request)

    def abort(self, request_id: str) -> None:
        self._all("abort", request_id)

    def step(self, tell: bool = True) -> list[Delta]:
        deltas: list[Delta] = self._all("step", tell)
        return deltas

    def configure(
        self, settings: EngineConfig, selector: SelectorConfig, plan: PlanConfig | None = None
    ) -> None:
        self._all("configure", settings, selector, plan)

    def warm_up(self) -> None:
        self._all("warm_up")

    def room(self) -> int:
        return self._engine.room()

    def waiting(self) -> list[str]:
        return self._engine.waiting()

    def stats(self) -> dict[str, float]:
        return self._engine.stats()

    @property
    def busy(self) -> bool:
        return self._engine.busy

    @property
    def slow(self) -> str | None:
        return self._engine.slow

    @property
    def plan_id(self) -> str:
        return self._engine.plan_id

    def _all(self, method: str, *args: Any) -> Any:
        self._rank.group.told((method, args, self._rank.trail))
        return self._rank.do(method, *args)


def follow(engine: Engine) -> NoReturn:
    """What a rank other than 0 does, for ever.

    Raises:
        RuntimeError: its tokens are not those of rank 0; or whatever the engine raises.
    """
    rank = Rank(engine)
    while True:
        method, args, trail = rank.group.told()
        if trail != rank.trail:
            raise RuntimeError(f"rank {rank.group.rank} has other tokens than rank 0")
        try:
            rank.do(method, *args)
        except ValueError:  # refused on all ranks alike; rank 0 says so
            if method == "step":
                raise
