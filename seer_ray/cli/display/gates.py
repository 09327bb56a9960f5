"""An evaluation of gates as a person follows and reads it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.clustered import quantile
from seer_ray.analysis.words import count
from seer_ray.cli.display.calibration import EXPLAINED as CALIBRATION
from seer_ray.cli.display.calibration import calibration_table
from seer_ray.cli.display.measure import MeasureView

if TYPE_CHECKING:
    from seer_ray.jobs.gates_eval import GatesSummary
    from seer_ray.jobs.gates_shares import SharesSummary

EXPLAINED = (
    "KV: tokens read per head and step. KL in nats and top-1, the same next token as dense, in %: every "
    "token sparse in every layer; ±: half of a 95 % interval, documents being the independent draws. mass: "
    "attention probability inside the blocks read, %; of oracle: of what the oracle keeps, which ranks "
    "blocks by their largest probability (best: by the sum); worst (layer). recall: of the oracle's blocks. "
    "shared: the budget as the mean over heads, by an allocation."
)
ROWS_EXPLAINED = (
    "sharp: the quarter of a document's rows in which most query heads give half of their attention to one "
    "block that is neither the first nor among the last 64 tokens; flat: the others."
)
SHARES_EXPLAINED = (
    "KL of the next token in nats, expected: the sum over heads, each sparse alone; seer-ray gates eval "
    "measures it, on held-out text. KV: tokens read per head and step. By layer: KL with that layer sparse "
    "alone, and KV where the mean is as the column says."
)


class GatesView(MeasureView["GatesSummary"]):
    """Of an evaluation of gates."""

    def conclude(self, console: Console, summary: GatesSummary) -> None:
        print_gates(console, summary)


class SharesView(MeasureView["SharesSummary"]):
    """Of a division of a budget."""

    def conclude(self, console: Console, summary: SharesSummary) -> None:
        print_shares(console, summary)


def print_gates(console: Console, report: GatesSummary) -> None:
    """The tables, and where the rest is."""
    kinds = list(dict.fromkeys((row["source"], row["positions"]) for row in report.sources))
    parts: list[tuple[str, list[dict[str, Any]]]] = [
        (positions, [row for row in report.table if row["positions"] == positions])
        for positions in dict.fromkeys(row["positions"] for row in report.table)
    ]
    for source, positions in kinds:
        rows = [r for r in report.sources if (r["source"], r["positions"]) == (source, positions)]
        parts.append((f"{source} · {positions}", rows))
    documents = (
        f"{count(report.documents, 'document')}, {report.tokens:,} tokens, blocks of {report.block_size}"
    )
    console.print(Text(f"\n{report.name}", "bold"), Text(f"{report.model}: {documents}", "dim"))
    for label, rows in parts:
        title = "all positions" if label == "all" else label.replace(" · all", "")
        console.print(Text(f"\n{title}", "bold"), _table(rows))
    if report.rows:
        console.print(Text("\nsharp and flat rows", "bold"), _rows(report.rows))
        console.print(Text(ROWS_EXPLAINED, "dim"))
    for budget in dict.fromkeys(row["budget"] for row in report.table):
        console.print(Text(f"\nmass at {budget} by layer, %", "bold"), _layers(report, budget))
    console.print(Text(EXPLAINED, "dim"))
    if report.calibration:
        console.print(Text("\nmass of the shares", "bold"), calibration_table(report.calibration))
        console.print(Text(CALIBRATION, "dim"))
    for name, source in report.gates.items():
        console.print(Text.assemble((f"{name:13}", "dim"), source), soft_wrap=True)
    console.print(Text.assemble((f"{'results':13}", "dim"), (report.folder, "cyan")), soft_wrap=True)


def print_shares(console: Console, report: SharesSummary) -> None:
    """What is expected of it, and what to set."""
    documents = (
        f"{count(report.documents, 'document')}, {report.tokens:,} tokens, blocks of {report.block_size}"
    )
    console.print(Text(f"\n{report.name}", "bold"), Text(f"{report.model}: {documents}", "dim"))
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("")
    for name in ("budget", "KV", "KL shared", "KL uniform"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for one in report.spent:
        name = one["selector"] if one["selector"] != before else ""
        before = one["selector"]
        losses = (f"{one[key]:.5f}" for key in ("kl", "uniform"))
        table.add_row(name, f"{one['budget']:,}", f"{one['read']:,.0f}", *losses)
    console.print(table)
    own = [one for one in report.spent if one["selector"] == report.spent[0]["selector"]]
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for name in ("layer", "KL alone", *(f"{one['budget']:,}" for one in own)):
        table.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(report.layers):
        read = (f"{one['layers'][place]:,.0f}" for one in own)
        table.add_row(str(row["layer"]), f"{row['kl']:.5f}", *read)
    console.print(table)
    console.print(Text(SHARES_EXPLAINED, "dim"))
    console.print(Text(f"selector.allocation={report.folder}"), soft_wrap=True)
    console.print(Text.assemble((f"{'results':13}", "dim"), (report.folder, "cyan")), soft_wrap=True)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("budget", no_wrap=True)
    table.add_column("", overflow="fold")
    for name in ("KV", "KL", "top-1", "mass", "of oracle", "worst", "recall"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    for row in sorted(rows, key=lambda row: budgets.index(row["budget"])):
        first = row["budget"] != before
        if first and before is not None:
            table.add_section()
        before = row["budget"]
        worst = _share(row["worst_of_oracle"])
        if worst:
            worst += f" ({row['worst_layer']})"
        kept = [_share(row["mass"]), _share(row["of_oracle"]), worst, _share(row["recall"])]
        cells = [f"{row['read']:,.0f}", _kl(row), _agreement(row), *kept]
        table.add_row(row["budget"] if first else "", row["selector"], *cells)
    return table


def _rows(rows: list[dict[str, Any]]) -> Table:
    """KL and top-1 of sharp and of flat rows."""
    kinds = list(dict.fromkeys(row["positions"] for row in rows))
    by = {(row["budget"], row["selector"], row["positions"]): row for row in rows}
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("budget", no_wrap=True)
    table.add_column("", overflow="fold")
    for name in (f"{value}, {kind}" for kind in kinds for value in ("KL", "top-1")):
        table.add_column(name, justify="right", no_wrap=True)
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    lines = dict.fromkeys((row["budget"], row["selector"]) for row in rows)
    for budget, selector in sorted(lines, key=lambda line: budgets.index(line[0])):
        own = [by[budget, selector, kind] for kind in kinds]
        table.add_row(budget, selector, *(cell for row in own for cell in (_kl(row), _agreement(row))))
    return table


def _layers(report: GatesSummary, budget: str) -> Table:
    """The mass kept in each layer."""
    rows = [row for row in report.layers if row["budget"] == budget and row["positions"] == "all"]
    selectors = list(dict.fromkeys(row["selector"] for row in rows))
    by = {(row["layer"], row["selector"]): row for row in rows}
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("layer", justify="right")
    for selector in selectors:
        table.add_column(selector, justify="right")
    for layer in sorted({row["layer"] for row in rows}):
        found = [by.get((layer, selector)) for selector in selectors]
        table.add_row(str(layer), *(_share(row["mass"]) if row else "" for row in found))
    return table


def _share(value: float | None) -> str:
    """In percent."""
    return "" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def _agreement(row: dict[str, Any]) -> str:
    """Top-1 with half of its interval, where there are documents enough for one."""
    error = _share(_half(row, "top1"))
    return _share(row["top1"]) + (f"±{error}" if error else "")


def _kl(row: dict[str, Any]) -> str:
    if row["kl"] is None:
        return ""
    half = _half(row, "kl")
    return f"{row['kl']:.4f}" + (f"±{half:.4f}" if math.isfinite(half) else "")


def _half(row: dict[str, Any], value: str) -> float:
    """Of the 95 % interval, by Student's quantile of so many documents."""
    if row[f"{value}_se"] is None or row["documents"] < 2:
        return math.nan
    return float(quantile(0.975, [1] * row["documents"])) * float(row[f"{value}_se"])
