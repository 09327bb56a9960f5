"""What is printed of a comparison of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.comparison import GroupDifferences
from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.recommend import Answer, Assessment, Keeps, Recommendation
from seer_ray.analysis.words import in_brief, points, round_percent, signed_percent

SHOWN = {
    Keeps.YES: Text("yes", "green"),
    Keeps.NO: Text("no", "red"),
    Keeps.UNKNOWN: Text("open", "yellow"),
}


def print_comparison(console: Console, found: Recommendation) -> None:
    """The paired table, the recommendation, and what it rests on. The table has room in 80 columns."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for name in ("right %", "change, points", "KV", "decode", "length"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("keeps", no_wrap=True)
    read = found.baseline_cost.attended_share
    kv = round_percent(read) if read else ""
    table.add_row(found.baseline, _accuracy(found.baseline_accuracy), "", kv)
    for one in found.assessments:
        table.add_row(*_row(one))
    console.print(table)
    sure = f"{100 * found.confidence:g} %"
    claim = f"loses less than {100 * found.margin:g} points, at {sure} confidence"
    console.print(Text(f"in brackets {sure} intervals, by problem; keeps: {claim}", "dim"))
    for lacks in dict.fromkeys(one.speed.lacks for one in found.assessments if one.speed.lacks):
        names = [one.name for one in found.assessments if one.speed.lacks == lacks]
        which = "" if len(names) == len(found.assessments) else f" of {', '.join(names)}"
        console.print(Text(f"no speed{which}: {lacks}", "dim"))
    console.print(Text(found.sentence, "bold" if found.answer is Answer.TAKE else ""))
    console.print(Text(f"Rests on {found.rests_on}.", "dim"))


def print_groups(
    console: Console, column: str, baseline: str, groups: Sequence[GroupDifferences], confidence: float
) -> None:
    """What settings change, apart for each value of a column. The table has room in 80 columns."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in (column, ""):
        table.add_column(name, overflow="fold")
    for name in ("problems", "right %", "change, points"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        table.add_row(group.value, baseline, f"{group.problems:,}", _accuracy(group.baseline), "")
        for name, found in group.differences.items():
            change = f"{points(found.value)} ({found.ends})"
            table.add_row("", name, "", "", change if math.isfinite(found.low) else points(found.value))
    console.print(table)
    console.print(
        Text(
            f"in brackets {confidence:g} % intervals, by problem, of each group alone: of many, some err",
            "dim",
        )
    )


def _row(one: Assessment) -> list[str | Text]:
    found, speed = one.difference, one.speed.value
    read = one.cost.attended_share
    length = signed_percent(one.drift.value) if one.drift else ""
    return [
        one.name,
        _accuracy(one.accuracy),
        f"{points(found.value)} ({found.ends})",
        round_percent(read) if read else "",
        "" if speed is None else f"{speed:.2g}x",
        length,
        SHOWN[one.keeps],
    ]


def _accuracy(found: Estimate) -> str:
    return in_brief(found.value, found.low, found.high)
