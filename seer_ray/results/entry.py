"""One committed part of a run: a Parquet file, and the ledger entry that names it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from seer_ray.results.seal import FILE, RUN_ID, check_seal, seal
from seer_ray.results.store import Store

Key = tuple[str, int]
"""(problem id, sample number)"""

PARTS, ENTRIES = "completions", "ledger"
STEM = re.compile(r"(\d{6,})-[0-9a-f]{8}")
ROW_GROUP_BYTES = 64 << 20


FIELDS = frozenset({"rows", "size", "keys", "supersedes"})
"""Of an entry of before there were seals."""
PART_OF = b"seer_ray.run_id"
"""In a part's metadata: the run."""


@dataclass(frozen=True)
class Entry:
    """One committed part."""

    rows: int
    size: int
    """Of the file, in bytes."""
    keys: tuple[Key, ...]
    supersedes: tuple[str, ...] = ()
    """Stems of the entries whose rows this part holds as well."""
    sha256: str | None = None
    """Of the file, in hex; None: written before there were seals."""

    @classmethod
    def of(cls, part: pa.Buffer, keys: Sequence[Key], supersedes: Sequence[str] = ()) -> Entry:
        """Of a part's content."""
        return cls(len(keys), part.size, tuple(keys), tuple(supersedes), hashlib.sha256(part).hexdigest())

    def dump(self, stem: str, run_id: str) -> bytes:
        """The entry's file."""
        return json.dumps(seal({**asdict(self), RUN_ID: run_id, FILE: entry_name(stem)})).encode()

    @classmethod
    def parse(cls, data: bytes, stem: str, run_id: str, sealed: bool) -> Entry:
        """Raises ValueError, KeyError or TypeError for what is not a whole entry of this run and this name.

        Args:
            sealed: none of this run is from before there were seals.
        """
        raw = json.loads(data)
        if sealed or raw.keys() != FIELDS:
            check_seal(raw, run_id, entry_name(stem))
        keys = tuple((str(problem), int(sample)) for problem, sample in raw["keys"])
        if len(keys) != raw["rows"]:
            raise ValueError(f"{raw['rows']} rows but {len(keys)} keys")
        return cls(len(keys), int(raw["size"]), keys, tuple(raw["supersedes"]), raw.get("sha256"))


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


def read_part(store: Store, stem: str, columns: list[str] | None, sha256: str | None = None) -> pa.Table:
    """Some columns of a part, or all.

    Args:
        sha256: of the whole file, which is then read and compared; None: only what the columns need is read

    Raises:
        FileNotFoundError, OSError, pa.ArrowException: cannot be read.
        ValueError: not the file that was written.
    """
    with store.open(part_name(stem)) as file:
        if sha256 is None:
            return pq.ParquetFile(file, page_checksum_verification=True).read(columns)
        content = file.read_buffer()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("is not as it was written")
    return pq.ParquetFile(content, page_checksum_verification=True).read(columns)


def part_keys(store: Store, stem: str) -> tuple[str | None, list[Key], pa.Buffer]:
    """What a part says of itself: the run that it is of (None: it does not say), its keys, its content.

    Raises:
        FileNotFoundError, OSError, pa.ArrowException: cannot be read.
    """
    with store.open(part_name(stem)) as file:
        content = file.read_buffer()
    table = pq.ParquetFile(content, page_checksum_verification=True).read(["problem_id", "sample"])
    run_id = (table.schema.metadata or {}).get(PART_OF)
    keys = list(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
    return run_id.decode("utf-8", "replace") if run_id is not None else None, keys, content
