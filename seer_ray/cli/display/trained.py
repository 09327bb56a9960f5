"""A grid of trained models as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.grids import EXPLAINED, claim_lines, grid_table, interval
from seer_ray.analysis.words import count
from seer_ray.cli.display.follow import print_places
from seer_ray.cli.display.measure import MeasureView

if TYPE_CHECKING:
    from seer_ray.jobs.study_train import TrainedSummary


class TrainedView(MeasureView["TrainedSummary"]):
    """Of models trained from scratch."""

    def conclude(self, console: Console, summary: TrainedSummary) -> None:
        console.print(Text(f"\n{summary.name}", "bold"), Text(count(summary.seeds, "seed"), "dim"))
        for learn in dict.fromkeys(row["learn"] for row in summary.models):
            heads, lines = grid_table(summary.models, learn, brief=True)
            console.print(_table([learn, *heads[1:]], lines))
        console.print(Text(EXPLAINED, "dim"))
        if best := [row for row in summary.pareto if row["best"]]:
            ordered = sorted(best, key=lambda row: (row["learn"], row["bytes"]))
            lines = [
                (f"{row['mixer']}, {row['layout']}", f"{row['bytes']:,}", interval(row, "recall", "{:.3f}"))
                for row in ordered
            ]
            console.print(_table(["most recall for its bytes", f"at {best[0]['length']:,}", "recall"], lines))
        if told := claim_lines(summary.claims):
            console.print(_table(["", "what the papers say", "here", ""], told, left=2))
        print_places(console, summary, [("results", summary.folder)])


def _table(heads: Sequence[str], lines: Sequence[tuple[str, ...]], left: int = 1) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < left else "right")
    for line in lines:
        table.add_row(*line)
    return table
