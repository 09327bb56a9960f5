"""Rows of a run to be read: which of them, in the order of problems and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seer_ray.analysis.groups import matching
from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.results.folder import RUN, RunFolder
from seer_ray.results.store import open_store
from seer_ray.results.sweep import INDEX, SweepFolder

BRIEF = (
    "problem_id",
    "sample",
    "correct",
    "extracted_answer",
    "reference",
    "completion_tokens",
    "finish_reason",
    "grade_error",
    "error",
    "inputs",
)
"""Columns that tell of a row without its texts."""
FULL = (*BRIEF, "prompt", "completion", "reasoning", "answer", "prompt_tokens", "in_form", "selector")


def chosen(
    uri: str,
    problem: str | None = None,
    sample: int | None = None,
    wrong: bool = False,
    where: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Rows by column: ``FULL`` of one problem, else ``BRIEF``.

    Args:
        uri: of a run's folder
        problem: only its rows; None: of all
        sample: only this number
        wrong: only rows that are not right: errors, and what is not graded, as well
        where: values of columns that are kept

    Raises:
        ConfigError: no run is there, or no such row.
    """
    names = open_store(uri).list()
    if RUN not in names and INDEX in names:
        points = [point["slug"] for point in SweepFolder.view(uri).points]
        raise ConfigError(f"{uri}: a sweep; name one of its points, such as {uri}/points/{points[0]}")
    folder = RunFolder.view(uri)
    if problem is None:
        table = folder.read(BRIEF)
    else:
        known = dict.fromkeys(id for id, _ in folder.in_order())
        table = folder.pick([key for key in folder.in_order() if key[0] == problem], FULL)
    if where and (problem is None or problem in known):
        table = matching(table, where)
    rows = table.to_pylist()
    if problem is not None and problem not in known:
        there = f"; it has {', '.join(list(known)[:5])}{', ...' if len(known) > 5 else ''}" if known else ""
        raise ConfigError(
            f"{problem}: no row of {uri} is of this problem{did_you_mean(problem, known)}{there}"
        )
    rows = [
        row
        for row in rows
        if problem in (None, row["problem_id"])
        and sample in (None, row["sample"])
        and not (wrong and row["correct"])
    ]
    if not rows:
        raise ConfigError(f"{uri}: no such row; leave --sample, --wrong or --where out")
    return sorted(rows, key=lambda row: (row["problem_id"], row["sample"]))
