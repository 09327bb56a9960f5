"""A probe as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import signed_interval, signed_range
from seer_ray.cli.display.follow import print_places
from seer_ray.cli.display.measure import MeasureView

if TYPE_CHECKING:
    from seer_ray.jobs.study_probe import ProbeSummary

EXPLAINED = (
    "Zero-shot: nothing was trained after layers were relaxed, so this is what the weights rely on, not what "
    "a model needs. Δ: loss more than dense, nats a token, with its 95 % interval over documents. index: Δ "
    "of a set less the sum of its layers' Δ alone; above 0, they back each other up. Beside it: random sets "
    "of the same size, mean and range."
)
CHOSEN = (
    "The same number of layers stays dense, all others are {cheap}: equal reads. On documents that no choice "
    "has seen; − spaced: loss less that of equal spacing (last of each stretch), same documents."
)
TEXT = "text"


class ProbeView(MeasureView["ProbeSummary"]):
    """Of a probe."""

    def conclude(self, console: Console, summary: ProbeSummary) -> None:
        console.print(Text(f"\n{summary.name}", "bold"), Text(f"{summary.model}, {summary.regime}", "dim"))
        console.print(_alone(summary.profile))
        if summary.cooperation:
            console.print(_company(summary.cooperation))
        console.print(Text(EXPLAINED, "dim"))
        if summary.choices:
            console.print(_choices(summary.choices))
            console.print(Text(CHOSEN.format(cheap=summary.cheap), "dim"))
        print_places(console, summary, [("results", summary.folder)])


def _alone(rows: Sequence[dict[str, Any]]) -> Table:
    """By relaxation: layers that cost least and most, and what is still recalled."""
    table = _table(
        "one layer alone", "median Δ", "most Δ", "layer", "least Δ", "layer", "recall, worst layer"
    )
    for kind in dict.fromkeys(row["relaxation"] for row in rows):
        own = sorted(
            (row for row in rows if row["relaxation"] == kind and row["source"] == TEXT),
            key=lambda row: row["delta"],
        )
        tasks = [row for row in rows if row["relaxation"] == kind and row["recall"]]
        worst = min(tasks, key=lambda row: row["right"], default=None)
        recall = (
            f"{100 * worst['right']:.0f} of {100 * worst['dense_right']:.0f} % ({worst['layer']})"
            if worst
            else ""
        )
        table.add_row(
            kind,
            f"{own[len(own) // 2]['delta']:+.3f}",
            signed_interval(own[-1], "delta"),
            str(own[-1]["layer"]),
            f"{own[0]['delta']:+.3f}",
            str(own[0]["layer"]),
            recall,
        )
    return table


def _company(rows: Sequence[dict[str, Any]]) -> Table:
    table = _table("together", "layers", "Δ", "index", "random sets: Δ", "index")
    for row in rows:
        table.add_row(
            f"{row['relaxation']}, {row['set']}",
            str(row["size"]),
            signed_interval(row, "delta"),
            signed_interval(row, "index"),
            *(signed_range(row, f"random_{name}") for name in ("delta", "index")),
        )
    return table


def _choices(rows: Sequence[dict[str, Any]]) -> Table:
    table = _table("stay dense", "layers", "Δ", "− spaced", "KL", "top-1, %")
    for row in rows:
        if row["source"] == TEXT:
            than = signed_interval(row, "than_spaced") if row.get("than_spaced") is not None else ""
            layers = ",".join(map(str, row["dense"]))
            figures = f"{row['delta']:+.3f}", than, f"{row['kl']:.3f}", f"{100 * row['top1']:.1f}"
            table.add_row(row["choice"], layers, *figures)
    return table


def _table(*heads: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    return table
