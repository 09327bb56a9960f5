"""The rows of a run, for programs."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.results import schema
from seer_ray.results.folder import RunFolder


def read(run: str, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
    """Committed rows of a run, in the order of their commits, as an Arrow stream that is read as it is used::

        for batch in seer_ray.read("runs/NAME", ["problem_id", "correct"]): ...
        seer_ray.read("runs/NAME").read_all().to_pandas()

    DuckDB, Polars, pandas and ``datasets`` take such a reader, and any that knows Arrow's C stream. Only the
    columns are read that are named, and one part is in memory at a time. The run may be at work: rows that it
    commits while they are read may be among them, and none is there twice.

    Args:
        run: its folder, a path or URI.
        columns: of the results' schema (docs/results.md), in this order; None: all.

    Raises:
        ConfigError: no run is there, there is no such column, or, here or when it is read, a part is missing
            or not as it was written.
    """
    for name in columns or ():
        if name not in schema.NAMES:
            raise ConfigError(f"{name}: no such column{did_you_mean(name, schema.NAMES)}")
    return RunFolder.view(run).stream(columns)
