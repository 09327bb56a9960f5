"""What a metric of a run is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seer_ray.analysis.measures import Value
from seer_ray.analysis.rows import Run

Values = Mapping[str, Value]
"""By name."""
Words = Callable[..., str]
"""A value in words; that of a metric with an interval takes its ends too, None: not known."""


@dataclass(frozen=True)
class Line:
    """A line of a run's summary on the terminal, or a part of one: parts of one label stand side by side."""

    label: str
    words: Words
    """Empty: not worth saying."""
    joint: str = " · "
    """Between it and the part before it."""


@dataclass(frozen=True)
class Column:
    """A column of a table with one line a run."""

    head: str
    words: Words
    place: int = 0
    """From the left."""
    optional: bool = False
    """Left out where it is known of no run."""


@dataclass(frozen=True)
class Metric:
    """Something to say of a run."""

    name: str
    """In ``metrics.json`` and MLflow. With ``{k}`` a family, of which ``of`` gives the members by k."""
    meaning: str
    unit: str
    columns: tuple[str, ...]
    """Of a row, that it is computed from, beside those that ``Totals`` sums up."""
    of: Callable[[Run], Value | Mapping[int, Value] | None]
    interval: tuple[str, str] | None = None
    """Names of the metrics that are the ends of its interval."""
    live: str = ""
    """Field of ``LiveStats`` and ``status.json``, while the job runs: only of what ``Totals`` sums up."""
    twin: bool = False
    """Says what another one says: not told to MLflow, whose page has a chart for each."""
    summary: Line | None = None
    sweep: Column | None = None
    """In the table of a sweep's points."""
    report: Column | None = None
    """In the report's table of settings, after those that have intervals."""

    def said(self, words: Words, values: Values) -> str:
        """In words; empty: not known."""
        if self.name not in values:
            return ""
        value = values[self.name]
        return words(value, *map(values.get, self.interval or ()))
