"""A job that a person follows: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.errors import ErrorKind
from seer_ray.analysis.metrics import family, known, live_values, summary_lines
from seer_ray.analysis.words import count, duration, percent, with_interval
from seer_ray.cli.display.follow import View, bar, facts_panel, print_places
from seer_ray.cli.display.sweep import print_estimate
from seer_ray.status.live import LiveStats, Summary
from seer_ray.status.pulse import JobStatus

KINDS = 5
"""Of errors that are told, the most frequent."""


class RunView(View[LiveStats, Summary]):
    """Of a run."""

    def panel(self, title: str, live: LiveStats, state: str = "") -> Panel:
        return live_panel(title, live, state)

    def lines(self, live: LiveStats) -> Iterable[str]:
        yield live_line(live)

    def conclude(self, console: Console, summary: Summary) -> None:
        print_summary(console, summary)

    def print_plan(self, console: Console, plan: Any) -> None:
        print_estimate(console, plan)

    def print_state(self, console: Console, status: JobStatus) -> None:
        if status.state != "done":
            super().print_state(console, status)
            return
        live, told = status.live, (status.name, status.folder, status.live.elapsed_s)
        rows = {"rows": live.done, "errors": live.errors, "resumed": live.resumed}
        summary = Summary(*told, metrics=status.metrics, **rows)
        summary.error_kinds, summary.groups = status.error_kinds, status.groups
        print_summary(console, summary)


def live_panel(title: str, live: LiveStats, state: str = "") -> Panel:
    """The job at one moment."""
    share = live.done / live.total if live.total else 0.0
    words = f"{live.done:,} of {count(live.total, 'row')} [bold]{share:.0%}[/]"
    return facts_panel(
        title, state or live.phase, [("done", bar(live.done, live.total, words)), *facts(live)]
    )


def facts(live: LiveStats) -> list[tuple[str, Text]]:
    """Label and text of the lines under the bar. Always the same ones, so that nothing jumps."""
    left = f" · about {duration(live.eta_s)} left" if live.eta_s is not None else ""
    before = f" · {count(live.resumed, 'row')} done before" if live.resumed else ""
    speed = Text.assemble(
        (f"{live.tokens_per_s:,.0f} tokens/s", "bold"), f" · {count(live.new_tokens, 'token')} so far"
    )
    said = summary_lines(live_values(live))
    if live.captured_share is not None and live.captured_share < 1:
        speed.append(f" · {percent(live.captured_share)} of steps captured", "yellow")
    chains = Text(f"{live.running:,} running · {live.queued:,} waiting")
    if live.to_grade:
        chains.append(f" · {live.to_grade:,} to grade")
    if live.saved:
        chains.append(f" · {live.saved:,} not needed")
    if live.errors:
        chains.append(f" · {count(live.errors, 'error')}", "red")
    workers = f"{live.workers_ready} of {max(live.workers_wanted, live.workers_ready)} ready"
    if live.workers_starting:
        workers += f" · {live.workers_starting} starting"
    return [
        ("time", Text(f"{duration(live.elapsed_s)}{left}{before}")),
        ("speed", speed),
        ("accuracy", _accuracy(said) or Text("nothing graded yet", "dim")),
        ("attention", Text(_attention(said)) if "attention" in said else Text("not decoded yet", "dim")),
        ("chains", chains),
        ("workers", Text(workers)),
    ]


def _attention(said: Mapping[str, str]) -> str:
    """With what came of drafts."""
    return f"{said['attention']} · drafts: {said['drafts']}" if "drafts" in said else said["attention"]


def live_line(live: LiveStats) -> str:
    """The job at one moment, on one line."""
    graded = _accuracy(summary_lines(live_values(live)))
    parts = [
        live.phase,
        f"{live.done}/{count(live.total, 'row')}" if live.total else "",
        f"{live.tokens_per_s:,.0f} tokens/s" if live.new_tokens else "",
        f"accuracy {graded}" if graded else "",
        f"{percent(live.sparsity)} of KV skipped" if live.sparsity is not None else "",
        f"{percent(live.acceptance)} of drafts accepted" if live.acceptance is not None else "",
        f"{live.running} running, {live.queued} waiting" if live.running or live.queued else "",
        f"{live.to_grade} to grade" if live.to_grade else "",
        f"{live.saved} not needed" if live.saved else "",
        f"{live.workers_ready}/{count(live.workers_wanted, 'worker')}" if live.workers_wanted else "",
        count(live.errors, "error") if live.errors else "",
        f"about {duration(live.eta_s)} left" if live.eta_s is not None else "",
    ]
    return f"{duration(live.elapsed_s):>7}  " + " · ".join(part for part in parts if part)


def print_summary(console: Console, summary: Summary) -> None:
    """What a job came to, where it is, and what to try next."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=11)
    table.add_column(overflow="fold")
    for label, value in metric_rows(summary.metrics):
        table.add_row(label, value)
    before = f", {summary.resumed:,} of them from before" if summary.resumed else ""
    if summary.rows == summary.resumed:
        before = ", all from before"
    table.add_row("rows", f"{summary.rows:,}{before}, in {duration(summary.elapsed_s)}")
    if summary.errors:
        wrong = f"{count(summary.errors, 'row')} with a reason in place of an answer, counted as wrong"
        table.add_row("errors", Text(wrong, "red"))
    for kind in summary.error_kinds[:KINDS]:
        table.add_row("", Text(ErrorKind(**kind).text))
    if (more := len(summary.error_kinds) - KINDS) > 0:
        table.add_row("", f"and {count(more, 'other kind')}")
    console.print(Text(f"\n{summary.name}\n", "bold"), table, "")
    for column in dict.fromkeys(group["column"] for group in summary.groups):
        console.print(_groups_table(column, [one for one in summary.groups if one["column"] == column]), "")
    places = [("report", summary.report)] if summary.report else []
    print_places(console, summary, [*places, ("results", f"{summary.folder}/completions/*.parquet")])


def _groups_table(column: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    """Accuracy by the values of a column."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column(column, overflow="fold")
    for name in ("rows", "right (95 % interval)"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        right = group["accuracy"]
        said = with_interval(right, group["low"], group["high"]) if right is not None else "not graded"
        table.add_row(Text(group["value"]), f"{group['rows']:,}", said)
    return table


def metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Text]]:
    """Label and text of the metrics that a summary shows, those that there are.

    Args:
        metrics: by name, see ``seer_ray.analysis.metrics``
    """
    values = known(metrics)
    said = summary_lines(values)
    samples = max(family("accuracy/pass_at_{k}", values), default=1)
    accuracy = [(f"avg@{samples}", text)] if (text := _accuracy(said)) else []
    return accuracy + [(label, Text(text)) for label, text in said.items() if label != "accuracy"]


def _accuracy(said: Mapping[str, str]) -> Text | None:
    """Of the lines of a summary, that which says how good it is. None: nothing is graded."""
    if "accuracy" not in said:
        return None
    value, space, interval = said["accuracy"].partition(" (")
    return Text.assemble((value, "bold"), f"{space}{interval}, 95 % interval" if interval else "")
