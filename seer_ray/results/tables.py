"""Tables that a job writes beside its summary."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from seer_ray.results.store import Store


def write_table(store: Store, name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as ``NAME.parquet``; columns are those of any of them. The name of the file; none without rows."""
    if not rows:
        return []
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd")
    store.write(f"{name}.parquet", out.getvalue())
    return [f"{name}.parquet"]
