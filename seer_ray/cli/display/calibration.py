"""What shares of the scores say beside what is kept, as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import count
from seer_ray.cli.display.measure import MeasureView

if TYPE_CHECKING:
    from seer_ray.jobs.gates_calibrate import CalibrateSummary

EXPLAINED = (
    "In %, of the attention to complete blocks: what a mass of the shares selects without a cap, the sum of "
    "its shares (predicted), and the attention inside (kept)."
)


class CalibrateView(MeasureView["CalibrateSummary"]):
    """Of a fit of temperatures."""

    def conclude(self, console: Console, summary: CalibrateSummary) -> None:
        documents = f"{count(summary.documents, 'document')}, {summary.tokens:,} tokens"
        console.print(Text(f"\n{summary.name}", "bold"), Text(f"{summary.model}: {documents}", "dim"))
        console.print(calibration_table(summary.calibration))
        console.print(Text(EXPLAINED, "dim"))
        each = sorted(one for heads in summary.temperatures for one in heads)
        said = f"{each[0]:.3g} to {each[-1]:.3g}, median {each[len(each) // 2]:.3g}, one for each KV head"
        console.print(Text.assemble((f"{'temperature':13}", "dim"), said), soft_wrap=True)
        console.print(
            Text.assemble((f"{'results':13}", "dim"), (summary.folder, "cyan"), " (its gates: the set)"),
            soft_wrap=True,
        )


def calibration_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Predicted and kept mass of each selector by level."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("mass", justify="right")
    selectors = list(dict.fromkeys(row["selector"] for row in rows))
    for selector in selectors:
        for name in (f"{selector}: predicted", "kept"):
            table.add_column(name, justify="right")
    by = {(row["selector"], row["level"]): row for row in rows}
    for level in dict.fromkeys(row["level"] for row in rows):
        own = [by[selector, level] for selector in selectors]
        cells = [f"{100 * row[name]:.1f}" for row in own for name in ("predicted", "kept")]
        table.add_row(f"{100 * level:g}", *cells)
    return table
