"""Training as a person follows it: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import count, duration
from seer_ray.cli.display.follow import print_behind
from seer_ray.status.live import TrainSummary

if TYPE_CHECKING:
    from seer_ray.status.training import TrainStatus

LAYER = "/layer_"
"""In the names of metrics of one layer: recorded, and not shown."""
LINE_INTERVAL = 10.0
"""Seconds between two lines where nobody watches a terminal."""


class ConsoleReporter:
    """Shows it on ``progress``, and what it came to on ``result``; None: to nobody."""

    def __init__(self, progress: Console, result: Console | None) -> None:
        self.console, self.result = progress, result
        self.bar: Progress | None = None
        self.steps, self.shown_at = 0, -LINE_INTERVAL

    def start(self, name: str, steps: int) -> None:
        self.steps = steps
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                console=self.console,
            )
            self.bar.add_task(name, total=steps, state="starting workers")
            self.bar.start()
        else:
            self.note(name)

    def update(self, step: int, metrics: dict[str, float]) -> None:
        text = describe(metrics)
        if self.bar is not None:
            task = self.bar.task_ids[0]
            self.bar.update(task, completed=step)
            if "train/loss" in metrics:
                self.bar.update(task, state=text)
            elif text:
                self.note(f"step {step}: {text}")
            return
        now = time.monotonic()
        last = step == self.steps or "train/loss" not in metrics
        if text and (last or now - self.shown_at >= LINE_INTERVAL):
            self.shown_at = now
            self.note(f"step {step}/{self.steps} · {text}")

    def note(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def finish(self, summary: TrainSummary) -> None:
        self.close()
        if self.result is None:
            return
        self.result.print(results_table(summary.name, summary.metrics))
        self.result.print(f"{summary.product}: {summary.step:,} steps, {summary.tokens:,.0f} tokens")
        for command in summary.next_commands:
            self.result.print(f"next: {command}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def results_table(name: str, metrics: Mapping[str, float]) -> Table:
    """What a job came to."""
    table = Table("metric", "value", title=name, title_style="bold")
    for metric, value in metrics.items():
        if not metric.startswith(("time/", "speed/")) and LAYER not in metric:
            table.add_row(metric, f"{value:,.5g}")
    return table


def print_train_status(console: Console, status: TrainStatus) -> None:
    """A training job as its folder tells: what it came to if it is done, else how far it is."""
    if status.state == "done":
        console.print(results_table(status.name, status.metrics))
    elif status.step or status.state != "new":
        console.print(_panel(status))
    console.print(Text(f"{status.name}: {status.message}"), soft_wrap=True)
    print_behind(console, status, status.folder)


def _panel(status: TrainStatus) -> Panel:
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    whole = max(1, status.steps or status.step)
    bar.add_row(
        ProgressBar(total=whole, completed=status.step, complete_style="cyan"),
        Text.assemble(f"{status.step:,} of {count(whole, 'step')} ", (f"{status.step / whole:.0%}", "bold")),
    )
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_row("done", bar)
    last = {name: value for name, value in status.metrics.items() if not name.startswith("eval/")}
    if "train/loss" in last:
        grid.add_row("training", describe(last))
    if held_out := {name: value for name, value in status.metrics.items() if name.startswith("eval/")}:
        grid.add_row("held out", describe(held_out))
    return Panel(
        grid,
        title=Text(status.name, "bold"),
        subtitle=Text(f"{status.job} · {status.state}", "italic"),
        border_style="cyan",
        padding=(0, 1),
    )


def describe(metrics: dict[str, float]) -> str:
    """Metrics of one moment on one line; those of the evaluation whole, of training the main ones."""
    metrics = {name: value for name, value in metrics.items() if LAYER not in name}
    if "train/loss" not in metrics:
        return " · ".join(f"{name.removeprefix('eval/')} {value:.4g}" for name, value in metrics.items())
    own = [
        f"{name.removeprefix('train/')} {value:.4g}"
        for name, value in metrics.items()
        if name.startswith("train/") and name not in ("train/tokens", "train/gradient_norm")
    ]
    if "speed/tokens_per_s" in metrics:
        own.append(f"{metrics['speed/tokens_per_s']:,.0f} tokens/s")
    left = metrics.get("time/eta_s")
    return " · ".join([*own, f"about {duration(left)} left"] if left else own)
