"""A job that a person follows: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from seer_ray.config.secrets import hidden, redacted
from seer_ray.status.live import JobSummary
from seer_ray.status.pulse import JobStatus

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where nobody watches a terminal."""


class Phased(Protocol):
    """How far a job is."""

    @property
    def phase(self) -> str: ...


L = TypeVar("L", bound=Phased)
S = TypeVar("S", bound=JobSummary)


class View(Generic[L, S]):
    """How a kind of job looks in a terminal; one for each job that is looked at."""

    def panel(self, title: str, live: L, state: str = "") -> RenderableType:
        """The job at one moment."""
        raise NotImplementedError

    def lines(self, live: L) -> Iterable[str]:
        """What is worth telling where there is no room for a panel."""
        raise NotImplementedError

    def urgent(self, live: L, phase: str) -> bool:
        """Whether that is told at once, whenever something was told last; ``phase``: what it was then."""
        return live.phase != phase

    def events(self, live: L) -> Iterable[str]:
        """What stays on a terminal, above the panel."""
        return ()

    def conclude(self, console: Console, summary: S) -> None:
        """What the job came to."""
        raise NotImplementedError

    def print_plan(self, console: Console, plan: Any) -> None:
        """What the job would do, see ``JobKind.plan``."""
        for line in (*plan.lines(), "nothing is begun"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def print_state(self, console: Console, status: JobStatus) -> None:
        """What a folder tells, before it is said in words."""
        if status.state != "new":
            console.print(self.panel(status.name, status.live, status.state))

    def print_status(self, console: Console, status: JobStatus) -> None:
        """A job as its folder tells."""
        self.print_state(console, status)
        console.print(Text(f"{status.name}: {status.message}"), soft_wrap=True)
        if status.behind:
            console.print(Text(status.behind, "yellow"), soft_wrap=True)

    def follower(
        self,
        progress: Console,
        result: Console | None,
        title: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> Follower[L, S]:
        """What suits the place that ``progress`` writes to.

        Args:
            progress: shows how far the job is
            result: shows what it came to; None: nobody does
            title: the job's name
            clock: seconds
        """
        return Follower(self, progress, result, title, clock)


class Follower(Generic[L, S]):
    """The ``Reporter`` of every console."""

    def __init__(
        self,
        view: View[L, S],
        progress: Console,
        result: Console | None,
        title: str,
        clock: Callable[[], float],
    ) -> None:
        self.view, self.progress, self.result, self.title = view, progress, result, title
        self._clock, self._told_at, self._phase = clock, -PLAIN_INTERVAL, ""
        self._panel: Live | None = None
        self._started = False

    @property
    def _watched(self) -> bool:
        """Whether it is a terminal that a panel can be drawn on, again and again."""
        return self.progress.is_terminal and not self.progress.is_dumb_terminal

    def start(self, live: L) -> None:
        if self._started:
            self.update(live)
            return
        self._started = True
        if self._watched:
            self._panel = Live(self.view.panel(self.title, live), console=self.progress, transient=True)
            self._panel.start()
        else:
            self._line(self.title)
            self.update(live)

    def update(self, live: L) -> None:
        if self._panel is not None:
            for event in self.view.events(live):
                self.note(event)
            self._panel.update(self.view.panel(self.title, live))
        elif not self._watched:
            now = self._clock()
            if now - self._told_at >= PLAIN_INTERVAL or self.view.urgent(live, self._phase):
                for line in self.view.lines(live):
                    self._told_at = now
                    self._line(line)
                self._phase = live.phase

    def note(self, message: str) -> None:
        message = hidden(message)
        if self._watched:
            self.progress.print(Text.assemble(("• ", "yellow"), message))
        else:
            self._line(f"note: {message}")

    def finish(self, summary: S) -> None:
        self.close()
        if self.result is not None:
            self.view.conclude(self.result, summary)

    def close(self) -> None:
        if self._panel is not None:
            self._panel.stop()
            self._panel = None

    def _line(self, text: str) -> None:
        self.progress.print(text, markup=False, highlight=False, soft_wrap=True)


def bar(done: int, total: int, text: str) -> RenderableType:
    """How far something is, with words (rich markup) behind it."""
    progress = Progress(BarColumn(None, complete_style="cyan"), TextColumn("{task.description}"), expand=True)
    progress.add_task(text, total=max(1, total), completed=done)
    return progress.get_renderable()


def facts_panel(title: str, subtitle: str, rows: Iterable[tuple[str, RenderableType]]) -> Panel:
    """What is known of a job at one moment, label and text."""
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for label, text in rows:
        grid.add_row(label, text)
    return Panel(
        grid,
        title=Text(title, "bold"),
        subtitle=Text(subtitle, "italic"),
        border_style="cyan",
        padding=(0, 1),
    )


def results_table(name: str, figures: Mapping[str, float | str]) -> Table:
    """What a job came to."""
    table = Table("metric", "value", title=name, title_style="bold")
    for label, value in figures.items():
        table.add_row(label, value if isinstance(value, str) else f"{value:,.5g}")
    return table


def print_places(console: Console, summary: JobSummary, places: list[tuple[str, str]]) -> None:
    """Where a job's results are, and what to try next. Never broken or cut, so that it can be copied."""
    if uri := summary.tracking_uri:
        served = uri.startswith(("http://", "https://"))
        places = [*places, ("MLflow", uri if served else f"mlflow ui --backend-store-uri {uri}")]
    for index, command in enumerate(summary.next_commands):
        places = [*places, ("" if index else "next", command)]
    for label, text in places:
        console.print(Text.assemble((f"{label:13}", "dim"), (redacted(text), "cyan")), soft_wrap=True)
