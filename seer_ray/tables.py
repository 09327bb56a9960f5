"""What is printed once: the summary of a job, the status of a run, the options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from seer_ray.config import ConfigError, RunConfig, did_you_mean, options
from seer_ray.jobs.live import Summary
from seer_ray.overrides import Overrides, describe, show


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
    places.append(("results", f"{summary.folder}/completions/*.parquet"))
    if summary.tracking_uri:
        served = summary.tracking_uri.startswith(("http://", "https://"))
        view = summary.tracking_uri if served else f"mlflow ui --backend-store-uri {summary.tracking_uri}"
        places.append(("MLflow", view))
    places += [("next" if i == 0 else "", command) for i, command in enumerate(summary.next_commands)]
    for label, text in places:
        # Never broken or cut, so that it can be copied.
        console.print(Text.assemble((f"{label:13}", "dim"), (text, "cyan")), soft_wrap=True)


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
