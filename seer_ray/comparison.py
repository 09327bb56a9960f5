"""What is printed of a comparison of runs."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.recommend import Answer, Assessment, Keeps, Recommendation
from seer_ray.analysis.wording import percent, points

STYLES = {Keeps.YES: "green", Keeps.NO: "red", Keeps.UNKNOWN: "yellow"}


def print_comparison(console: Console, found: Recommendation) -> None:
    """The paired table, the recommendation, and what it rests on."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("", overflow="fold")
    for name in (
        "accuracy %",
        "points",
        f"{100 * found.confidence:g} % interval",
        "KV read",
        "decode",
        "length",
    ):
        table.add_column(name, justify="right")
    table.add_column(f"within {100 * found.margin:g} points")
    share = found.baseline_cost.attended_share
    read = percent(share) if share else ""
    table.add_row(found.baseline, _accuracy(found.baseline_accuracy), "", "", read)
    for one in found.assessments:
        table.add_row(*_row(one))
    console.print(table)
    for one in found.assessments:
        if not one.same_job and one.speedup is not None:
            console.print(Text("* speeds of different jobs: machine and load may have differed", "dim"))
            break
    console.print(Text(found.sentence, "bold" if found.answer is Answer.TAKE else ""))
    console.print(Text(f"Rests on {found.rests_on}.", "dim"))


def _row(one: Assessment) -> list[str | Text]:
    found, speed = one.difference, ""
    if one.speedup is not None:
        speed = f"{one.speedup:.2g}x{'' if one.same_job else '*'}"
    share = one.cost.attended_share
    length = ""
    if one.drift:
        length = f"{100 * one.drift.value:+.1f} %".replace("-", "−")
    return [
        one.name,
        _accuracy(one.accuracy),
        f"{points(found.value)} ± {100 * found.stderr:.1f}",
        f"{points(found.low)} to {points(found.high)}",
        percent(share) if share else "",
        speed,
        length,
        Text(one.keeps.value, STYLES[one.keeps]),
    ]


def _accuracy(found: Estimate) -> str:
    return f"{100 * found.value:.1f} ± {100 * found.stderr:.1f}"
