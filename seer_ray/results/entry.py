"""One part of a run: a Parquet file, and the ledger entry that says which contents it may have."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from seer_ray.results.keys import KEYS, KeyColumns
from seer_ray.results.seal import FILE, RUN_ID, check_seal, seal
from seer_ray.results.store import Store

PARTS, ENTRIES = "completions", "ledger"
STEM = re.compile(r"\d{6,}(?:-[0-9a-f]{8})?")
"""Of a part: its number; those of before 0.3 have random digits too."""
ROW_GROUP_BYTES = 64 << 20

FIELDS = frozenset({"rows", "size", "keys", "supersedes"})
"""Of an entry of before there were seals."""
PART_OF = b"seer_ray.run_id"
"""In a part's metadata: the run."""
FULL, GRADER, FENCE = "seer_ray.full", "seer_ray.grader", "seer_ray.fence"
"""In the same, of a part that takes no more rows, of one that was graded again: by what, and of one that was
written again when the folder was taken over."""


@dataclass(frozen=True)
class Content:
    """What a part's file may be."""

    rows: int
    size: int
    """Of the file, in bytes."""
    footer: str | None
    """SHA-256 of the Parquet footer, in hex: it says where the pages are, which have checksums of their own.
    None: not noted (before 0.3)."""

    @classmethod
    def of(cls, part: pa.Buffer, rows: int) -> Content:
        """Of a part's bytes."""
        return cls(rows, part.size, _footer(pa.BufferReader(part), part.size))


@dataclass(frozen=True)
class Entry:
    """What is known of one part, beside the part."""

    contents: tuple[Content, ...]
    """Of the last commit, and of that which was begun since: which of them is there, the part says."""
    committed: bool
    """Whether there has been a part: if it is gone, it was lost."""
    fence: str = ""
    """Of who took the folder over last: another than whoever was asleep then has seen."""
    supersedes: tuple[str, ...] = ()
    """Stems of parts whose rows this part holds as well (before 0.3)."""

    def dump(self, stem: str, run_id: str) -> bytes:
        """The entry's file."""
        contents = [asdict(content) for content in self.contents]
        said = {"committed": self.committed, "contents": contents, "fence": self.fence}
        return json.dumps(seal({**said, RUN_ID: run_id, FILE: entry_name(stem)})).encode()

    @classmethod
    def parse(cls, data: bytes, stem: str, run_id: str, sealed: bool) -> Entry:
        """Raises ValueError, KeyError or TypeError for what is not a whole entry of this run and this name.

        Args:
            sealed: none of this run is from before there were seals.
        """
        raw = json.loads(data)
        if sealed or raw.keys() != FIELDS:
            check_seal(raw, run_id, entry_name(stem))
        if "contents" in raw:
            contents = [Content(int(c["rows"]), int(c["size"]), str(c["footer"])) for c in raw["contents"]]
            return cls(tuple(contents), bool(raw["committed"]), str(raw["fence"]))
        if len(raw["keys"]) != raw["rows"]:
            raise ValueError(f"{raw['rows']} rows but {len(raw['keys'])} keys")
        content = Content(int(raw["rows"]), int(raw["size"]), None)
        return cls((content,), True, "", tuple(raw["supersedes"]))


@dataclass(frozen=True)
class Part:
    """A part as it was seen."""

    stem: str
    tag: str
    """Of the file, see ``Store.tags``."""
    entry: Entry
    content: Content
    """The one of the entry's that is there."""
    keys: KeyColumns
    marks: Mapping[str, str]
    """``FULL`` and ``GRADER``."""


def part_name(stem: str) -> str:
    return f"{PARTS}/part-{stem}.parquet"


def entry_name(stem: str) -> str:
    return f"{ENTRIES}/{stem}.json"


def order(stem: str) -> tuple[int, str]:
    number, _, unique = stem.partition("-")
    return int(number), unique


def parquet(table: pa.Table) -> pa.Buffer:
    """A part's content."""
    per_row = max(1, table.nbytes // max(1, table.num_rows))
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=max(1, ROW_GROUP_BYTES // per_row),
        write_page_checksum=True,
    )
    return sink.getvalue()


@contextlib.contextmanager
def opened(store: Store, stem: str, entry: Entry) -> Iterator[tuple[pq.ParquetFile, Content]]:
    """A part whose footer was compared with its entry, and which of its contents it is; what is read of it is
    checked by page.

    Raises:
        FileNotFoundError, OSError, pa.ArrowException: cannot be read.
        ValueError: none of the contents that the entry names.
    """
    with store.open(part_name(stem)) as file:
        size = file.size()
        sizes = dict.fromkeys(content.size for content in entry.contents)
        if size not in sizes:
            raise ValueError(f"{size} bytes, not {' or '.join(map(str, sizes))}")
        footer = _footer(file, size)
        there = [c for c in entry.contents if c.size == size and c.footer in (None, footer)]
        if not there:
            raise ValueError("cannot be read (is not as it was written); try again")
        parquet_file = pq.ParquetFile(file, page_checksum_verification=True)
        if parquet_file.metadata.num_rows != there[0].rows:
            raise ValueError(f"{parquet_file.metadata.num_rows} rows, not {there[0].rows}")
        yield parquet_file, Content(there[0].rows, size, footer)


def see(store: Store, stem: str, tag: str, entry: Entry) -> Part:
    """A part with its keys. Raises as ``opened``."""
    with opened(store, stem, entry) as (file, content):
        return Part(stem, tag, entry, content, KeyColumns([file.read(KEYS)]), _marks(file))


def read_part(store: Store, part: Part, columns: Sequence[str] | None) -> pa.Table:
    """Some columns of a part, or all; those that it lacks are left out. Raises as ``opened``."""
    with opened(store, part.stem, part.entry) as (file, content):
        if content != part.content:
            raise ValueError("has changed")
        if columns is None:
            return file.read()
        there = set(file.schema_arrow.names)
        # Without any column there would be no rows.
        return file.read([name for name in columns if name in there] or KEYS[:1])


def unnamed(store: Store, stem: str) -> tuple[str | None, KeyColumns, Content, Mapping[str, str]]:
    """What a part without an entry says of itself: its run (None: it does not say), keys, content and marks.

    Raises:
        FileNotFoundError, OSError, pa.ArrowException, ValueError: cannot be read.
    """
    with store.open(part_name(stem)) as source:
        data = source.read_buffer()
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    table = file.read(KEYS)
    run_id = (table.schema.metadata or {}).get(PART_OF)
    content = Content.of(data, table.num_rows)
    return (
        run_id.decode("utf-8", "replace") if run_id is not None else None,
        KeyColumns([table]),
        content,
        _marks(file),
    )


def _marks(file: pq.ParquetFile) -> dict[str, str]:
    said = file.schema_arrow.metadata or {}
    return {name: said[name.encode()].decode() for name in (FULL, GRADER) if name.encode() in said}


def _footer(file: pa.NativeFile, size: int) -> str | None:
    """Digest of the footer with its length; of a file that has none of what is there."""
    file.seek(max(0, size - 8))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(0, size - 8 - length))
    return hashlib.sha256(file.read()).hexdigest()
