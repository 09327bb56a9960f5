"""A grid of trained models as people read it: a row for each, a column for each measure that it has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
MEASURES = (
    (r"text/perplexity", "perplexity", "{:,.2f}", True),
    (r"text_context_(\d+)/perplexity", "in contexts of {}", "{:,.2f}", False),
    (r"text_skip/perplexity", "skipped", "{:,.0f}", False),
    (r"(\d+)_pairs/token_accuracy", "{} pairs", "{:.3f}", True),
    (r"(\d+)_steps/answers", "{} steps right", "{:.3f}", True),
    (r"memory/at_(\d+)", "bytes at {}", "{:,.0f}", False),
    (r"reads/at_(\d+)", "reads at {}", "{:,.0f}", False),
    (r"decode/ms_a_step", "ms a step", "{:.2f}", False),
    (r"train/seconds", "s trained", "{:,.0f}", False),
    (r"weights", "weights", "{:,.0f}", False),
)
"""Pattern, head of the column, how a value is written, and whether its interval is."""
LAST = ("memory", "reads")
"""Of which only the longest length is shown."""
BRIEF = ("text/", "text_skip", r"(\d+)_", *LAST)
"""How patterns begin of what a narrow table shows, of each the last."""


def grid_table(
    rows: Sequence[Row], learn: str, brief: bool = False
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Heads and lines of what models learned.

    Args:
        rows: of ``study.outcomes.model_table``.
        learn: what.
        brief: only the columns of ``BRIEF``.
    """
    own = [row for row in rows if row["learn"] == learn]
    by: dict[tuple[str, str], dict[str, Row]] = {}
    for row in own:
        by.setdefault((row["mixer"], row["layout"]), {})[row["name"]] = row
    columns = _columns({row["name"] for row in own}, brief)
    lines = []
    for (mixer, layout), found in by.items():
        cells = [_cell(found.get(name), form, ends) for name, _, form, ends in columns]
        lines.append((f"{mixer}, {layout}", *cells))
    return ["", *(head for _, head, _, _ in columns)], lines


def _columns(names: set[str], brief: bool) -> list[tuple[str, str, str, bool]]:
    found = []
    for pattern, head, form, ends in MEASURES:
        matches = [match for name in names if (match := re.fullmatch(pattern, name))]
        matches.sort(key=lambda match: int(match[1]) if match.groups() else 0)
        if pattern.startswith(BRIEF if brief else LAST):
            matches = matches[-1:]
        elif brief:
            continue
        found += [(match[0], head.format(*match.groups()), form, ends) for match in matches]
    return found


def _cell(row: Row | None, form: str, ends: bool) -> str:
    if row is None:
        return ""
    return interval(row, "mean", form) if ends else form.format(row["mean"])


def interval(row: Row, name: str, form: str) -> str:
    """A mean with the ends of its interval, if one is known."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low is None else f" [{form}, {form}]".format(low, high)
    return form.format(row[name]) + ends


def claim_lines(rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Name, claim, whether it holds here, and figures; those that the grid tells nothing of are left out."""
    words = {True: "holds", False: "does not hold"}
    return [
        (row["name"], row["says"], words[row["holds"]], row["figures"])
        for row in rows
        if row["holds"] is not None
    ]


EXPLAINED = (
    "Trained from scratch: all models of a seed saw the same data in the same order, with as many weights (a "
    "layer within 1 %). Means over seeds with their 95 % interval (Student's). Skipped: perplexity once the "
    "layers that are no anchors are left out, with nothing trained afterwards. Bytes: what a sequence keeps. "
    "Reads: tokens that a step reads, mean over layers."
)
UNTIMED = (
    "Milliseconds a step are of this machine and of one sequence; on a CPU those of recurrent layers are of "
    "code in torch, and say nothing of what kernels would take."
)
