"""An evaluation of gates as a person follows and reads it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import count
from seer_ray.cli.display.calibration import EXPLAINED as CALIBRATION
from seer_ray.cli.display.calibration import calibration_table
from seer_ray.cli.display.measure import MeasureView

if TYPE_CHECKING:
    from seer_ray.jobs.gates_eval import GatesSummary
    from seer_ray.jobs.gates_shares import SharesSummary

EXPLAINED = (
    "In %. KV: tokens read per head and step. mass: attention probability inside the blocks read. "
    "of oracle: as a share of what the oracle keeps, which ranks blocks by their largest probability (best: "
    "by the sum); worst (layer). recall: of the oracle's blocks. KL in nats and top-1, the same next token "
    "as dense: every token sparse in every layer. ±: standard error over documents."
)
SHARES_EXPLAINED = (
    "By layer: KL of the next token in nats with that layer sparse alone, at the plain budget; KV tokens "
    "read per head and step, in the ways to spend the same mean. KL: the sum that is expected; seer-ray "
    "gates eval measures it, on held-out text, with settings=[these files]."
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
    """What to set, and what it is expected to bring."""
    documents = (
        f"{count(report.documents, 'document')}, {report.tokens:,} tokens, blocks of {report.block_size}"
    )
    console.print(Text(f"\n{report.name}", "bold"), Text(f"{report.model}: {documents}", "dim"))
    by_layer = [plan for plan in report.plans if "head_shares" not in plan["selector"]]  # others are too many
    names = [plan["name"] for plan in by_layer]
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for name in ("layer", "KL alone", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.layers:
        read = [f"{row[name]['read']:,.0f}" for name in names]
        table.add_row(str(row["layer"]), f"{row['kl']:.5f}", *read)
    table.add_section()
    table.add_row("mean", "", *(f"{plan['read']:,.0f}" for plan in by_layer))
    table.add_row("KL", "", *(f"{plan['kl']:.5f}" for plan in by_layer))
    console.print(table)
    for plan in report.plans:
        words = [f"selector.{key}={_word(value)}" for key, value in plan["selector"].items()]
        console.print(Text.assemble((f"{plan['name']:15} ", "dim"), " ".join(words)), soft_wrap=True)
        if plan not in by_layer:
            console.print(Text(f"{'':16}KL {plan['kl']:.5f}, {plan['read']:,.0f} tokens read", "dim"))
    console.print(Text(SHARES_EXPLAINED, "dim"))
    files = ", ".join(name for name in report.files if name.endswith(".yaml"))
    console.print(
        Text.assemble((f"{'results':13}", "dim"), (report.folder, "cyan"), f" ({files}: for --config)")
    )


def _word(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, dict):
        return "'{" + ", ".join(f"{key}: {_word(one)}" for key, one in value.items()) + "}'"
    if isinstance(value, list):
        return "[" + ", ".join(map(_word, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("budget", no_wrap=True)
    table.add_column("", overflow="fold")
    for name in ("KV", "mass", "of oracle", "worst", "recall", "KL", "top-1"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for row in rows:
        first = row["budget"] != before
        if first and before is not None:
            table.add_section()
        before = row["budget"]
        worst = _share(row["worst_of_oracle"])
        if worst:
            worst += f" ({row['worst_layer']})"
        read = f"{row['read']:,.0f}"
        cells = [read, _share(row["mass"]), _share(row["of_oracle"]), worst, _share(row["recall"])]
        kl = "" if row["kl"] is None else f"{row['kl']:.4f}"
        table.add_row(row["budget"] if first else "", row["selector"], *cells, kl, _agreement(row))
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
    """Top-1 with its standard error, where there are documents enough for one."""
    error = _share(row["top1_se"])
    return _share(row["top1"]) + (f"±{error}" if error else "")
