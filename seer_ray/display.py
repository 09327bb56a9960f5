"""A job that a person follows: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seer_ray.jobs.live import LiveStats, Reporter, Summary
from seer_ray.status import Pulse, RunStatus
from seer_ray.tables import accuracy, count, duration, percent, print_summary

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where nobody watches a terminal."""


class Phased(Protocol):
    """How far a job is."""

    @property
    def phase(self) -> str: ...


L = TypeVar("L", bound=Phased)
S = TypeVar("S")


def reporter_for(progress: Console, result: Console | None, title: str) -> Reporter:
    """What suits the place that ``progress`` writes to.

    Args:
        progress: shows how far the job is
        result: shows what it came to; None: nobody does
        title: the run's name
    """
    return (RichReporter if progress.is_terminal else PlainReporter)(progress, result, title)


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


class RichReporter(PanelFollower[LiveStats, Summary]):
    """Of a run."""

    def panel(self, live: LiveStats) -> Panel:
        return live_panel(self.title, live)

    def conclude(self, result: Console, summary: Summary) -> None:
        print_summary(result, summary)


class PlainReporter(LineFollower[LiveStats, Summary]):
    """Of a run."""

    def lines(self, live: LiveStats) -> Iterable[str]:
        yield live_line(live)

    def conclude(self, result: Console, summary: Summary) -> None:
        print_summary(result, summary)


def live_panel(title: str, live: LiveStats, state: str = "") -> Panel:
    """The job at one moment."""
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    share = live.done / live.total if live.total else 0.0
    bar.add_row(
        ProgressBar(total=max(1, live.total), completed=live.done, complete_style="cyan"),
        Text.assemble(f"{live.done:,} of {count(live.total, 'row')} ", (f"{share:.0%}", "bold")),
    )
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row("done", bar)
    for label, text in facts(live):
        grid.add_row(label, text)
    return Panel(
        grid,
        title=Text(title, "bold"),
        subtitle=Text(state or live.phase, "italic"),
        border_style="cyan",
        padding=(0, 1),
    )


def facts(live: LiveStats) -> list[tuple[str, Text]]:
    """Label and text of the lines under the bar. Always the same ones, so that nothing jumps."""
    left = f" · about {duration(live.eta_s)} left" if live.eta_s is not None else ""
    before = f" · {count(live.resumed, 'row')} done before" if live.resumed else ""
    speed = Text.assemble(
        (f"{live.tokens_per_s:,.0f} tokens/s", "bold"), f" · {count(live.new_tokens, 'token')} so far"
    )
    attention = Text("not decoded yet", "dim")
    if live.mean_attended is not None:
        attention = Text(f"{live.mean_attended:,.0f} KV tokens read per head and step")
        if live.sparsity is not None:
            attention.append(f" · {percent(live.sparsity)} skipped")
    chains = Text(f"{live.running:,} running · {live.queued:,} waiting")
    if live.errors:
        chains.append(f" · {count(live.errors, 'error')}", "red")
    workers = f"{live.workers_ready} of {max(live.workers_wanted, live.workers_ready)} ready"
    if live.workers_starting:
        workers += f" · {live.workers_starting} starting"
    return [
        ("time", Text(f"{duration(live.elapsed_s)}{left}{before}")),
        ("speed", speed),
        ("accuracy", accuracy(live.accuracy, live.accuracy_se) or Text("nothing graded yet", "dim")),
        ("attention", attention),
        ("chains", chains),
        ("workers", Text(workers)),
    ]


def live_line(live: LiveStats) -> str:
    """The job at one moment, on one line."""
    graded = accuracy(live.accuracy, live.accuracy_se)
    parts = [
        live.phase,
        f"{live.done}/{count(live.total, 'row')}",
        f"{live.tokens_per_s:,.0f} tokens/s" if live.new_tokens else "",
        f"accuracy {graded}" if graded else "",
        f"{percent(live.sparsity)} of KV skipped" if live.sparsity is not None else "",
        f"{live.running} running, {live.queued} waiting" if live.running or live.queued else "",
        f"{live.workers_ready}/{count(live.workers_wanted, 'worker')}" if live.workers_wanted else "",
        count(live.errors, "error") if live.errors else "",
        f"about {duration(live.eta_s)} left" if live.eta_s is not None else "",
    ]
    return f"{duration(live.elapsed_s):>7}  " + " · ".join(part for part in parts if part)


def print_status(console: Console, status: RunStatus) -> None:
    """A run as its folder tells: the summary if it is done, else how far it is."""
    if status.state == "done":
        print_summary(console, status.summary())
    else:
        if status.state != "new":
            console.print(live_panel(status.name, status.live, status.state))
        console.print(Text(f"{status.name}: {status.message}"), soft_wrap=True)
    print_behind(console, status, status.folder)


def print_behind(console: Console, pulse: Pulse, folder: str) -> None:
    """What MLflow has not been told of a job, if there is anything."""
    if behind := pulse.behind(folder):
        console.print(Text(behind, "yellow"), soft_wrap=True)
