"""One committed part of a run: a Parquet file, and the ledger entry that names it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from seer_ray.results.store import Store

Key = tuple[str, int]
"""(problem id, sample number)"""

PARTS, ENTRIES = "completions", "ledger"
STEM = re.compile(r"(\d{6,})-[0-9a-f]{8}")
ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Entry:
    """One committed part."""

    rows: int
    size: int
    """Of the file, in bytes."""
    keys: tuple[Key, ...]
    supersedes: tuple[str, ...] = ()
    """Stems of the entries whose rows this part holds as well."""

    @classmethod
    def parse(cls, data: bytes) -> Entry:
        """Raises ValueError, KeyError or TypeError for what is not a whole entry."""
        raw = json.loads(data)
        keys = tuple((str(problem), int(sample)) for problem, sample in raw["keys"])
        if len(keys) != raw["rows"]:
            raise ValueError(f"{raw['rows']} rows but {len(keys)} keys")
        return cls(int(raw["rows"]), int(raw["size"]), keys, tuple(raw["supersedes"]))


def part_name(stem: str) -> str:
    return f"{PARTS}/part-{stem}.parquet"


def entry_name(stem: str) -> str:
    return f"{ENTRIES}/{stem}.json"


def order(stem: str) -> tuple[int, str]:
    number, _, unique = stem.partition("-")
    return int(number), unique


def parquet(table: pa.Table) -> pa.Buffer:
    """A part's content, for a table with rows."""
    per_row = max(1, table.nbytes // table.num_rows)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=max(1, ROW_GROUP_BYTES // per_row),
        write_page_checksum=True,
    )
    return sink.getvalue()


def read_part(store: Store, stem: str, columns: list[str] | None) -> pa.Table:
    """Some columns of a part, or all. Raises FileNotFoundError, OSError or pa.ArrowException."""
    with store.open(part_name(stem)) as file:
        return pq.ParquetFile(file, page_checksum_verification=True).read(columns)
