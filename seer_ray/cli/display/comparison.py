"""What is printed of a comparison of runs."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.recommend import Answer, Assessment, Keeps, Recommendation
from seer_ray.analysis.words import points, round_percent, signed_percent

SHOWN = {
    Keeps.YES: Text("yes", "green"),
    Keeps.NO: Text("no", "red"),
    Keeps.UNKNOWN: Text("open", "yellow"),
}


def print_comparison(console: Console, found: Recommendation) -> None:
    """The paired table, the recommendation, and what it rests on. The table has room in 80 columns."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    change = f"points ({100 * found.confidence:g} %)"
    for name in ("right %", change, "KV", "decode", "length"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("keeps", no_wrap=True)
    read = found.baseline_cost.attended_share
    kv = round_percent(read) if read else ""
    table.add_row(found.baseline, _accuracy(found.baseline_accuracy), "", kv)
    for one in found.assessments:
        table.add_row(*_row(one))
    console.print(table)
    claim = f"loses less than {100 * found.margin:g} points, at {100 * found.confidence:g} % confidence"
    console.print(Text(f"± one standard error; keeps: {claim}", "dim"))
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
    read = one.cost.attended_share
    length = signed_percent(one.drift.value) if one.drift else ""
    return [
        one.name,
        _accuracy(one.accuracy),
        f"{points(found.value)} ({points(found.low)} to {points(found.high)})",
        round_percent(read) if read else "",
        speed,
        length,
        SHOWN[one.keeps],
    ]


def _accuracy(found: Estimate) -> str:
    return f"{100 * found.value:.1f} ± {100 * found.stderr:.1f}"
