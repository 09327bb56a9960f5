"""A sweep that a person follows: one line a point."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.grid import shown, thinking_grid
from seer_ray.analysis.metric import Column, Metric
from seer_ray.analysis.metrics import columns_of, known
from seer_ray.analysis.words import count, duration, in_brief, percent, round_percent
from seer_ray.cli.display.follow import View, bar, print_places
from seer_ray.status.live import PointLive, SweepLive, SweepSummary
from seer_ray.status.pulse import JobStatus

UNITS = ("", " rows", " % right", " of KV read", " tokens/s", "")
"""Of ``cells``, where no head says what they are."""
STYLES = {"done": "green", "stopped early": "green", "failed": "red", "running": "cyan"}
NARROW = ("kv/nominal_read_rate", "length/mean_tokens")
"""Columns that a table leaves out first where it is too wide."""


class SweepView(View[SweepLive, SweepSummary]):
    """The whole, and each point: all of them in a panel, those that have moved in lines."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[str, int]] = {}

    def panel(self, title: str, live: SweepLive, state: str = "") -> Panel:
        return sweep_panel(title, live, state)

    def lines(self, live: SweepLive) -> Iterable[str]:
        far = f" · {progress_text(live)}" if live.total else ""
        yield f"{duration(live.elapsed_s):>7}  {live.phase}{far}"
        for point in live.points:
            said = (point.state, point.live.done)
            if self.told.get(point.name, ("waiting", 0)) != said:
                self.told[point.name] = said
                words = zip(cells(point), UNITS, strict=True)
                yield "         " + " · ".join(f"{cell.plain}{unit}" for cell, unit in words if cell.plain)

    def conclude(self, console: Console, summary: SweepSummary) -> None:
        print_sweep_summary(console, summary)

    def print_plan(self, console: Console, plan: Any) -> None:
        print_estimate(console, plan)

    def print_state(self, console: Console, status: JobStatus) -> None:
        console.print(sweep_panel(status.name, status.live, status.state))
        for point in status.live.points:
            if point.error:
                console.print(Text(f"{point.name}: {point.error}", "red"), soft_wrap=True)


def progress_text(live: SweepLive) -> str:
    """How far all points are together, in words."""
    parts = [f"{live.done:,} of {count(live.total, 'row')}"]
    if live.workers_wanted:
        parts.append(f"{live.workers_ready} of {count(live.workers_wanted, 'worker')} ready")
    if live.eta_s:
        parts.append(f"about {duration(live.eta_s)} left")
    return " · ".join(parts)


def sweep_panel(title: str, live: SweepLive, state: str = "") -> Panel:
    """The sweep at one moment."""
    return Panel(
        Group(points_table(live.points), bar(live.done, live.total, progress_text(live))),
        title=Text(title, "bold"),
        subtitle=Text(state or f"{live.phase} · {duration(live.elapsed_s)}", "italic"),
        border_style="cyan",
        padding=(0, 1),
    )


def points_table(points: Sequence[PointLive]) -> Table:
    """One line a point."""
    table = _table("point", "rows", "right %", "KV read", "tokens/s", "")
    for point in points:
        table.add_row(*cells(point))
    return table


def cells(point: PointLive) -> list[Text]:
    """Name, rows, accuracy, share of the KV that is read, tokens per second, and the state."""
    live = point.live
    rows = f"{live.done:,}/{live.total:,}" if live.total else ""
    state = Text(point.state, STYLES.get(point.state, "dim"))
    if point.error and point.state != "failed":  # why it failed is told below, in full
        state.append(f": {textwrap.shorten(point.error, 60, placeholder=' …')}")
    elif live.errors:
        state.append(f", {count(live.errors, 'error')}", "red")
    return [
        Text(point.name, "bold"),
        Text(rows),
        Text("" if live.accuracy is None else in_brief(live.accuracy, live.accuracy_low, live.accuracy_high)),
        Text(percent(1 - live.sparsity) if live.sparsity is not None else ""),
        Text(f"{point.tokens_per_s:,.0f}" if point.tokens_per_s else ""),
        state,
    ]


def print_sweep_summary(console: Console, summary: SweepSummary) -> None:
    """What a sweep came to, where it is, and what to try next."""
    console.print(Text(f"\n{summary.name}\n", "bold"), _results(console, summary))
    for point in summary.points:
        if point["state"] == "failed":
            console.print(Text(f"{point['slug']} failed: {point['error']}", "red"), soft_wrap=True)
    note = "in brackets 95 % intervals; tokens/s in the time that workers had for the point"
    console.print(Text(note, "dim"), "")
    print_grid(console, summary)
    if summary.saved:
        console.print(Text(f"{summary.saved[0].upper()}{summary.saved[1:]}."), "")
    for line in (summary.recommendation or "").splitlines():
        console.print(Text(line, "dim" if line.startswith("Rests on") else ""))
    if summary.recommendation:
        console.print()
    places = [("results", f"{summary.folder}/points/*/completions/*.parquet")]
    print_places(console, summary, [*places, *([("report", summary.report)] if summary.report else [])])


def print_grid(console: Console, summary: SweepSummary) -> None:
    """Accuracy by thinking budget and by what attention reads, where there are several thinking budgets."""
    points = [point for point in summary.points if point["metrics"]]
    grid = thinking_grid((p["slug"], p.get("overrides", {}), known(p["metrics"])) for p in points)
    if grid is None:
        return
    table = _table("thinking budget", *map(shown, grid.budgets), "")
    for name, row in grid.rows.items():
        table.add_row(Text(name, "bold"), *(_thought(row.get(budget, {})) for budget in grid.budgets))
    note = "accuracy; below it the thinking tokens of a chain, and how many chains the budget cut short"
    console.print(table, Text(note, "dim"), "")


def _thought(metrics: Mapping[str, float]) -> str:
    """A cell of the grid, in two lines."""
    if "accuracy/avg" not in metrics:
        return ""
    said = in_brief(metrics["accuracy/avg"], metrics.get("accuracy/low"), metrics.get("accuracy/high"))
    if (tokens := metrics.get("thinking/mean_tokens")) is not None:
        said += f"\n{tokens:,.0f}"
        if (rate := metrics.get("thinking/forced_rate")) is not None:
            said += f", {round_percent(rate)}"
    return said


def print_estimate(console: Console, estimate: Any) -> None:
    """What a run or a sweep would do (``seer_ray.sweeps.estimate``)."""
    table = _table("point", "layers", "requests", "tokens", "time", "")
    bases: dict[str, list[str]] = {}
    for point in estimate.points:
        done = f" ({point.done:,} done)" if point.done else ""
        if point.basis:
            bases.setdefault(point.basis, []).append(point.name)
        table.add_row(
            Text(point.name, "bold"),
            point.plan,
            f"{point.requests:,}{done}",
            f"{point.tokens:,}" if point.tokens is not None else f"≤ {point.most:,}",
            duration(point.seconds) if point.seconds is not None else "?",
            Text(point.error or "", "red"),
        )
    console.print(Text(f"\n{estimate.name}\n", "bold"), table)
    for slug, other in estimate.same.items():
        console.print(f"{slug} reads the same blocks as {other}: one point", markup=False, highlight=False)
    for basis, names in bases.items():
        which = f" ({', '.join(names)})" if len(bases) > 1 else ""
        console.print(Text(f"tokens and time are estimated from {basis}{which}", "dim"), soft_wrap=True)
    unknown = [point.name for point in estimate.points if point.tokens is None]
    if unknown:
        which = "" if len(unknown) == len(estimate.points) else f" of {', '.join(unknown)}"
        console.print(
            Text(f"nothing like it{which} was measured yet: tokens are the most there can be", "dim"),
            soft_wrap=True,
        )
    tokens = f"about {estimate.tokens:,}" if estimate.tokens is not None else f"at most {estimate.most:,}"
    seconds = f", about {duration(estimate.seconds)}" if estimate.seconds is not None else ""
    console.print(
        f"{count(len(estimate.points), 'point')}, {count(estimate.requests, 'request')}, {tokens} tokens"
        f"{seconds}; nothing is begun",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _table(*heads: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1), show_edge=False)
    for index, head in enumerate(heads):
        right = 0 < index < len(heads) - 1
        table.add_column(head, justify="right" if right else "left", no_wrap=index < 2, overflow="fold")
    return table


def _results(console: Console, summary: SweepSummary) -> Table:
    """What the points came to, without the columns that a narrow terminal has no room for."""
    wide, said = console.options.update(max_width=1000), [point["metrics"] for point in summary.points]
    # Of what nothing is known (drafts, where none are made) there is no column.
    columns = [
        (metric, column)
        for metric, column in columns_of("sweep")
        if not column.optional or any(metric.name in values for values in said)
    ]
    for left_out in ("", *NARROW):
        columns = [(metric, column) for metric, column in columns if metric.name != left_out]
        table = _table("point", *(column.head for _, column in columns), "")
        for point in summary.points:
            table.add_row(*_result(point, columns))
        if console.measure(table, options=wide).maximum <= console.width:
            break
    return table


def _result(point: dict[str, Any], columns: Sequence[tuple[Metric, Column]]) -> list[str | Text]:
    """A line of the summary's table."""
    own = known(point["metrics"])
    cells = [metric.said(column.words, own) for metric, column in columns]
    state = "" if point["state"] == "done" else point["state"]
    return [Text(point["slug"], "bold"), *cells, Text(state, STYLES.get(state, "dim"))]
