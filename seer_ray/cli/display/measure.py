"""A job that measures a model, as a person follows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import duration
from seer_ray.cli.display.follow import S, View, bar, print_places
from seer_ray.status.live import JobSummary, MeasureLive


class MeasureView(View[MeasureLive, S]):
    """A bar over passes of the model, and at the end the figures of the summary."""

    def panel(self, title: str, live: MeasureLive, state: str = "") -> RenderableType:
        left = f" · about {duration(live.eta_s)} left" if live.eta_s is not None else ""
        head = Text.assemble((f"{title}  ", "bold"), state or live.phase)
        return Group(head, bar(live.done, live.total, f"{live.done} of {live.total} passes{left}"))

    def lines(self, live: MeasureLive) -> Iterable[str]:
        if live.total:
            yield f"pass {live.done + 1}/{live.total} · {live.phase}"

    def urgent(self, live: MeasureLive, phase: str) -> bool:
        return False

    def conclude(self, console: Console, summary: S) -> None:
        common = {item.name for item in dataclasses.fields(JobSummary)}
        table = Table("", "", title=summary.name, title_style="bold", show_header=False)
        for name, value in vars(summary).items():
            if name not in common and isinstance(value, (int, float, str)):
                table.add_row(
                    name.replace("_", " "), f"{value:,.5g}" if isinstance(value, float) else str(value)
                )
        console.print(table)
        print_places(console, summary, [("results", summary.folder)])
