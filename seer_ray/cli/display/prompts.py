"""An evaluation of prefill gates as a person reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import count
from seer_ray.cli.display.measure import MeasureView
from seer_ray.fidelity.figures import ALL

if TYPE_CHECKING:
    from seer_ray.jobs.gates_prompts import PromptsSummary

Row = dict[str, Any]

EXPLAINED = (
    "In %. mass: attention probability inside the blocks read, of the rows that leave something out; of "
    "oracle: as a share of what the oracle keeps; worst (layer). recall: of the oracle's blocks. KL in nats, "
    "top-1 and perplexity of the next token, every layer's prompt sparse; more: perplexity above dense."
)

NEEDLES = (
    "In %, with standard error over prompts: of the dense attention from the question's rows to where its "
    "answers stand, the part in blocks that they read."
)


class PromptsView(MeasureView["PromptsSummary"]):
    """Of an evaluation of prefill gates."""

    def conclude(self, console: Console, summary: PromptsSummary) -> None:
        documents = f"{count(summary.documents, 'document')}, {summary.tokens:,} tokens"
        documents += f", blocks of {summary.block_size}"
        console.print(Text(f"\n{summary.name}", "bold"), Text(f"{summary.model}: {documents}", "dim"))
        console.print(_table(summary.table, _kept))
        if all(row["perplexity"] is not None for row in summary.table):
            console.print(_table(summary.table, _outputs))
        console.print(Text(EXPLAINED, "dim"))
        if summary.needles:
            console.print(_needles(summary))
            console.print(Text(NEEDLES, "dim"))
        for name, source in summary.gates.items():
            console.print(Text.assemble((f"{name:13}", "dim"), source), soft_wrap=True)
        console.print(Text.assemble((f"{'results':13}", "dim"), (summary.folder, "cyan")), soft_wrap=True)


def _kept(row: Row) -> dict[str, str]:
    """What of attention is read."""
    return {
        "mass": _percent(row["mass"]),
        "of oracle": _percent(row["of_oracle"]),
        "worst": f"{_percent(row['worst_of_oracle'])} ({row['worst_layer']})",
        "recall": _percent(row["recall"]),
    }


def _outputs(row: Row) -> dict[str, str]:
    """What comes of it."""
    return {
        "KL": f"{row['kl']:.4f}",
        "top-1": _percent(row["top1"]),
        "perplexity": f"{row['perplexity']:.3f}",
        "more": _percent(row["more"]),
    }


def _table(rows: list[Row], cells_of: Callable[[Row], dict[str, str]]) -> Table:
    """By length and density; two of them stand where one would not fit a terminal."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    several = any(row["positions"] != ALL for row in rows)
    for name in (*(["length"] if several else []), "density", "", *cells_of(rows[0])):
        table.add_column(name, justify="left" if name in ("density", "") else "right", no_wrap=True)
    places = list(dict.fromkeys((row["positions"], row["budget"]) for row in rows))
    for place in places:
        first = True
        for row in rows:
            if (row["positions"], row["budget"]) == place:
                length = ([f"{int(place[0]):,}"] if first else [""]) if several else []
                cells = cells_of(row).values()
                table.add_row(*length, place[1] if first else "", row["selector"], *cells)
                first = False
        table.add_section()
    return table


def _needles(summary: PromptsSummary) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    rows = {(row["task"], row["budget"], row["selector"]): row for row in summary.needles}
    tasks, budgets, selectors = (list(dict.fromkeys(key)) for key in zip(*rows, strict=True))
    for name in ("task", "density", *selectors):
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for task in tasks:
        for budget in budgets:
            own = [rows[task, budget, selector] for selector in selectors]
            table.add_row(
                task, budget, *(f"{_percent(row['kept'])} ± {_percent(row['kept_se'])}" for row in own)
            )
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value == value else ""
