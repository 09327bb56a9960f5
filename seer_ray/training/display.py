"""Training as a person follows it: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from seer_ray.tables import duration

LAYER = "/layer_"
"""In the names of metrics of one layer: recorded, and not shown."""
LINE_INTERVAL = 10.0
"""Seconds between two lines where nobody watches a terminal."""


@dataclass
class TrainSummary:
    """What a training job came to."""

    name: str
    folder: str
    product: str
    """Folder of what was made."""
    step: int
    tokens: float
    metrics: dict[str, float] = field(default_factory=dict)
    """The last of every metric."""
    elapsed_s: float = 0.0
    tracking_uri: str | None = None
    tracking_run_id: str | None = None
    next_commands: list[str] = field(default_factory=list)


class TrainReporter(Protocol):
    """``start`` first, ``finish`` last and only of a job that is done; ``close`` comes always."""

    def start(self, name: str, steps: int) -> None: ...

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Several times a second, mostly without metrics."""

    def note(self, message: str) -> None: ...

    def finish(self, summary: TrainSummary) -> None: ...

    def close(self) -> None: ...


class SilentReporter:
    """Shows nothing."""

    def start(self, name: str, steps: int) -> None: ...

    def update(self, step: int, metrics: dict[str, float]) -> None: ...

    def note(self, message: str) -> None: ...

    def finish(self, summary: TrainSummary) -> None: ...

    def close(self) -> None: ...


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
        table = Table("metric", "value", title=summary.name, title_style="bold")
        for name, value in summary.metrics.items():
            if not name.startswith(("time/", "speed/")) and LAYER not in name:
                table.add_row(name, f"{value:,.5g}")
        self.result.print(table)
        self.result.print(f"{summary.product}: {summary.step:,} steps, {summary.tokens:,.0f} tokens")
        for command in summary.next_commands:
            self.result.print(f"next: {command}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


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
