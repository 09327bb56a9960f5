"""A job that measures a model, as a person follows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.text import Text

from seer_ray.analysis.words import duration
from seer_ray.cli.display.follow import S, View, bar, print_places, results_table
from seer_ray.status.live import JobSummary, MeasureLive
from seer_ray.status.pulse import JobStatus


class MeasureView(View[MeasureLive, S]):
    """A bar over passes of the model, and at the end the figures of the summary."""

    def panel(self, title: str, live: MeasureLive, state: str = "") -> RenderableType:
        left = f" · about {duration(live.eta_s)} left" if live.eta_s is not None else ""
        head = Text.assemble((f"{title}  ", "bold"), state or live.phase)
        units = f"{live.unit}es" if live.unit.endswith("s") else f"{live.unit}s"
        return Group(head, bar(live.done, live.total, f"{live.done} of {live.total} {units}{left}"))

    def lines(self, live: MeasureLive) -> Iterable[str]:
        if live.total:
            yield f"{live.unit} {min(live.done + 1, live.total)}/{live.total} · {live.phase}"
        elif live.phase:
            yield live.phase

    def urgent(self, live: MeasureLive, phase: str) -> bool:
        return not live.done and live.phase != phase

    def conclude(self, console: Console, summary: S) -> None:
        common = {item.name for item in dataclasses.fields(JobSummary)}
        plain = {name: value for name, value in vars(summary).items() if isinstance(value, (int, float, str))}
        figures = {name: value for name, value in plain.items() if name not in common}
        console.print(results_table(summary.name, figures))
        print_places(console, summary, [("results", summary.folder)])

    def print_state(self, console: Console, status: JobStatus) -> None:
        if status.state == "done":
            console.print(results_table(status.name, status.metrics))
        else:
            super().print_state(console, status)
