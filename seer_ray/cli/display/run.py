"""A job that a person follows: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seer_ray.cli.display.follow import View, bar, print_places
from seer_ray.cli.display.words import accuracy, count, duration, percent
from seer_ray.status.live import LiveStats, Summary
from seer_ray.status.pulse import JobStatus


class RunView(View[LiveStats, Summary]):
    """Of a run."""

    def panel(self, title: str, live: LiveStats, state: str = "") -> Panel:
        return live_panel(title, live, state)

    def lines(self, live: LiveStats) -> Iterable[str]:
        yield live_line(live)

    def conclude(self, console: Console, summary: Summary) -> None:
        print_summary(console, summary)

    def print_state(self, console: Console, status: JobStatus) -> None:
        if status.state != "done":
            super().print_state(console, status)
            return
        live, told = status.live, (status.name, status.folder, status.live.elapsed_s)
        rows = {"rows": live.done, "errors": live.errors, "resumed": live.resumed}
        print_summary(console, Summary(*told, metrics=status.metrics, **rows))


def live_panel(title: str, live: LiveStats, state: str = "") -> Panel:
    """The job at one moment."""
    share = live.done / live.total if live.total else 0.0
    words = f"{live.done:,} of {count(live.total, 'row')} [bold]{share:.0%}[/]"
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row("done", bar(live.done, live.total, words))
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
        table.add_row(
            "errors",
            Text(
                f"{count(summary.errors, 'row')} with a reason in place of an answer, counted as wrong", "red"
            ),
        )
    console.print(Text(f"\n{summary.name}\n", "bold"), table, "")
    places = [("report", summary.report)] if summary.report else []
    print_places(console, summary, [*places, ("results", f"{summary.folder}/completions/*.parquet")])


def metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
    """Label and text of the metrics that a summary shows, those that there are.

    Args:
        metrics: by the names of ``seer_ray.analysis.statistics``
    """
    known = {
        name: value
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
    rows: list[tuple[str, RenderableType]] = []
    passes = _by_k(known, "pass_at")
    share = accuracy(known.get("accuracy/avg"), known.get("accuracy/stderr"))
    if share is not None:
        rows.append((f"avg@{max(passes, default=1)}", share))
    rows += [(f"pass@{k}", percent(value)) for k, value in passes.items() if k > 1]
    rows += [(f"majority@{k}", percent(value)) for k, value in _by_k(known, "majority_at").items() if k > 1]
    if ungraded := int(known.get("rows/ungraded", 0)):
        rows.append(("ungraded", f"{count(ungraded, 'row')}, not counted above"))
    if "accuracy/no_answer_rate" in known:
        rows.append(("no answer", f"{percent(known['accuracy/no_answer_rate'])} of the completions"))
    if "length/mean_tokens" in known:
        cut = known.get("length/truncation_rate", 0.0)
        limit = f" · {percent(cut)} cut off at the limit" if cut else ""
        longest = f", {known['length/max_tokens']:,.0f} at most" if "length/max_tokens" in known else ""
        rows.append(("length", f"{known['length/mean_tokens']:,.0f} tokens on average{longest}{limit}"))
    if "speed/tokens_per_s" in known:
        rows.append(("speed", f"{known['speed/tokens_per_s']:,.0f} tokens/s"))
    reads = []
    if "kv/mean_attended" in known:
        reads.append(f"{known['kv/mean_attended']:,.0f} KV tokens read per head and step")
    if "kv/sparsity" in known:
        reads.append(f"{percent(known['kv/sparsity'])} skipped")
    if reads:
        rows.append(("attention", " · ".join(reads)))
    return rows


def _by_k(metrics: Mapping[str, float], name: str) -> dict[int, float]:
    """``accuracy/<name>_<k>`` by k, ascending."""
    found = {key.removeprefix(f"accuracy/{name}_"): value for key, value in metrics.items()}
    return {int(k): found[k] for k in sorted((k for k in found if k.isdigit()), key=int)}
