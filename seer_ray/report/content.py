"""What a page shows of a job, and where that is from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.report.drawing import Plot
from seer_ray.report.headline import Figure
from seer_ray.results.job import JobFolder

FIGURES_FILE = "figures.json"
"""Of a job that measures: its summary."""


@dataclass(frozen=True)
class Table:
    """A table of a page: the first column names the row."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Content:
    """What a page shows of a job."""

    about: str
    figures: list[Figure] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def figures_of(folder: JobFolder) -> dict[str, Any]:
    """The summary of a job that measures. Raises ConfigError: there is none yet."""
    found = folder.store.read_json(FIGURES_FILE, "measure again")
    if found is None:
        raise ConfigError(f"{folder.uri}: nothing is measured yet; give the job's command again")
    return found


def share(value: float | None) -> str:
    """In percent; empty: not known."""
    return "" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"
