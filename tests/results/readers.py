"""What different readers find in a run's folder: ``from results.readers import everywhere``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.dataset as ds

import seer_ray
from seer_ray.results.folder import RunFolder

Found = Counter[tuple[Any, ...]]
COLUMNS = ["problem_id", "sample", "extracted_answer"]


def globbed(path: Path) -> list[Found]:
    """By plain readers of Parquet, over a glob; rows as (problem, sample, answer)."""
    pattern = f"{path}/completions/*.parquet"
    if not list((path / "completions").glob("*.parquet")):
        return [Counter()]
    table = ds.dataset(sorted((path / "completions").glob("*.parquet")), format="parquet").to_table(COLUMNS)
    return [
        Counter(duckdb.sql(f"select {', '.join(COLUMNS)} from '{pattern}'").fetchall()),
        Counter(polars.scan_parquet(pattern).select(COLUMNS).collect().rows()),
        Counter(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)),
    ]


def everywhere(path: Path) -> Found:
    """Rows as (problem, sample, answer): the same by the ledger, by us, DuckDB, Polars and pyarrow."""
    table = seer_ray.read(str(path), COLUMNS).read_all()
    found = Counter(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))
    for other in globbed(path):
        assert other == found, (other, found)
    assert {key[:2] for key in found} == RunFolder.view(str(path)).committed()
    assert all(count == 1 for count in found.values()), found
    return found
