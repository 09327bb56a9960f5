"""What is printed once: the summary of a job, the status of a run, the options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from seer_ray.config import ConfigError, RunConfig, did_you_mean, options
from seer_ray.jobs.live import Summary
from seer_ray.overrides import Overrides, describe, show

METRICS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("no answer", "accuracy/no_answer", lambda share: percent(share)),
    ("length", "length/mean_tokens", lambda tokens: f"{tokens:,.0f} tokens on average"),
    ("speed", "speed/tokens_per_s", lambda speed: f"{speed:,.0f} tokens/s"),
    ("attention", "kv/mean_attended", lambda tokens: f"{tokens:,.0f} KV tokens read per head and step"),
    ("skipped", "kv/sparsity", lambda share: percent(share)),
)
"""Label, name and form of the metrics in a summary."""


def print_summary(console: Console, summary: Summary) -> None:
    """What a job came to, where it is, and what to try next."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in metric_rows(summary.metrics):
        table.add_row(label, value)
    before = f", {summary.resumed:,} of them from before" if summary.resumed else ""
    table.add_row("rows", f"{summary.rows:,}{before}, in {duration(summary.elapsed_s)}")
    if summary.errors:
        table.add_row(
            "errors", Text(f"{count(summary.errors, 'row')} with a reason in place of an answer", "red")
        )
    console.print(Text(f"\n{summary.name}\n", "bold"), table, "")
    places = [("results", f"{summary.folder}/completions/*.parquet")]
    if summary.tracking_uri:
        places.append(("MLflow", f"mlflow ui --backend-store-uri {summary.tracking_uri}"))
    places += [("next" if i == 0 else "", command) for i, command in enumerate(summary.next_commands)]
    for label, text in places:
        # Never broken or cut, so that it can be copied.
        console.print(Text.assemble((f"{label:9}", "dim"), (text, "cyan")), soft_wrap=True)


def metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
    """Label and text of the metrics that a summary shows, those that there are."""
    rows: list[tuple[str, RenderableType]] = []
    graded = accuracy(metrics.get("accuracy/avg"), metrics.get("accuracy/stderr"))
    if graded is not None:
        rows.append(("accuracy", graded))
    for label, name, form in METRICS:
        value = metrics.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            rows.append((label, form(value)))
    return rows


def options_view(config: RunConfig, reader: Overrides, prefix: str) -> RenderableType:
    """A table of all options whose names begin with ``prefix``, and the config groups.

    Args:
        config: whose values are shown as the defaults
    """
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("option=default", overflow="fold", max_width=36)
    table.add_column("meaning (type, unit)", ratio=1)
    for name, value, meta in options(config):
        if name.startswith(prefix):
            kind = " | ".join(meta["choices"] or ()) or describe(reader.types[name]).removeprefix("a ")
            unit = f", {meta['unit']}" if meta["unit"] else ""
            table.add_row(
                Text.assemble((name, "cyan"), ("=", "dim"), show(value)),
                Text.assemble(meta["help"].replace("None:", "null:"), (f" ({kind}{unit})", "dim")),
            )
    if not table.row_count:
        raise ConfigError(
            f"{prefix}: no option begins so{did_you_mean(prefix, [*reader.types, *reader.sections])}"
        )
    groups = [
        f"{group}={'|'.join(names)}" for group, names in reader.groups.items() if group.startswith(prefix)
    ]
    return Group(table, *(Text(line, "cyan") for line in groups))


def accuracy(share: float | None, se: float | None) -> Text | None:
    """Share that is right, with its standard error."""
    if share is None:
        return None
    spread = f" ± {100 * se:.1f}" if se is not None else ""
    return Text.assemble((f"{100 * share:.1f}{spread} %", "bold"), " (standard error)" if spread else "")


def percent(share: float) -> str:
    """0.417 -> 41.7 %"""
    return f"{100 * share:.1f} %"


def count(number: int, noun: str) -> str:
    """1 -> 1 row, 1200 -> 1,200 rows"""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """75 -> 1:15, 3700 -> 1:01:40"""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
