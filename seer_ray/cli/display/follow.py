"""Followers of a job: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from seer_ray.status.pulse import Pulse

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where nobody watches a terminal."""


class Phased(Protocol):
    """How far a job is."""

    @property
    def phase(self) -> str: ...


L = TypeVar("L", bound=Phased)


S = TypeVar("S")


class PanelFollower(Generic[L, S]):
    """A panel that follows a job, with events above it."""

    def __init__(self, progress: Console, result: Console | None, title: str) -> None:
        self.progress, self.result, self.title = progress, result, title
        self.live: Live | None = None

    def panel(self, live: L) -> Panel:
        """The job at one moment."""
        raise NotImplementedError

    def conclude(self, result: Console, summary: S) -> None:
        """Print what the job came to."""
        raise NotImplementedError

    def start(self, live: L) -> None:
        self.live = Live(self.panel(live), console=self.progress, transient=True)
        self.live.start()

    def update(self, live: L) -> None:
        if self.live:
            self.live.update(self.panel(live))

    def note(self, message: str) -> None:
        self.progress.print(Text.assemble(("• ", "yellow"), message))

    def finish(self, summary: S) -> None:
        self.close()
        if self.result:
            self.conclude(self.result, summary)

    def close(self) -> None:
        if self.live:
            self.live.stop()
            self.live = None


class LineFollower(Generic[L, S]):
    """Lines now and then, for logs."""

    def __init__(
        self,
        progress: Console,
        result: Console | None,
        title: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress, self.result, self.title, self.clock = progress, result, title, clock
        self.shown_at, self.phase = -PLAIN_INTERVAL, ""

    def lines(self, live: L) -> Iterable[str]:
        """What is worth telling."""
        raise NotImplementedError

    def conclude(self, result: Console, summary: S) -> None:
        """Print what the job came to."""
        raise NotImplementedError

    def start(self, live: L) -> None:
        self._line(self.title)
        self.update(live)

    def update(self, live: L) -> None:
        now = self.clock()
        if now - self.shown_at >= PLAIN_INTERVAL or live.phase != self.phase:
            self.shown_at, self.phase = now, live.phase
            for line in self.lines(live):
                self._line(line)

    def note(self, message: str) -> None:
        self._line(f"note: {message}")

    def finish(self, summary: S) -> None:
        if self.result:
            self.conclude(self.result, summary)

    def close(self) -> None: ...

    def _line(self, text: str) -> None:
        self.progress.print(text, markup=False, highlight=False, soft_wrap=True)


def print_behind(console: Console, pulse: Pulse, folder: str) -> None:
    """What MLflow has not been told of a job, if there is anything."""
    if behind := pulse.behind(folder):
        console.print(Text(behind, "yellow"), soft_wrap=True)
