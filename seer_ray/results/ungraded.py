"""Finished rows that wait for their grades, on disk, so that a killed driver decodes none of them again.

They are no rows of the run yet. A file has what was found waiting at one moment; it stays until all its rows
are committed, graded, in parts. A row in a file that is committed as well was committed after it.
"""

from __future__ import annotations

import logging
import re
import uuid
from array import array
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results import schema
from seer_ray.results.entry import PART_OF
from seer_ray.results.keys import Key
from seer_ray.results.seal import framed, unframed
from seer_ray.results.store import Store, is_temporary

log = logging.getLogger(__name__)

FOLDER = "ungraded"
MAGIC = b"seer-ray ungraded 1\n"
NAME = re.compile(r"(\d{6,})-[0-9a-f]{8}\.rows")

Row = dict[str, Any]


class UngradedRows(Collection[Key]):
    """The keys of the rows in the files of one run, for the lock's holder. Loads what is there.

    Args:
        store: the run's folder.
        metadata: of the run's parts, with its id; what is another run's is not believed.
        done: rows that are committed.

    Raises:
        ConfigError: a file cannot be read now.
    """

    def __init__(self, store: Store, metadata: Mapping[str, str], done: Container[Key] = ()) -> None:
        self._store, self._metadata = store, dict(metadata)
        self._before: dict[Key, Row] = {}
        self._file: dict[Key, str] = {}
        self._left: dict[str, int] = {}
        """Rows of a file that are not committed."""
        self._number = 0
        self._load(done)

    def __len__(self) -> int:
        return len(self._file)

    def __contains__(self, key: object) -> bool:
        return key in self._file

    def __iter__(self) -> Iterator[Key]:
        return iter(self._file)

    def take(self) -> list[Row]:
        """Those of earlier sessions, once."""
        before, self._before = self._before, {}
        return list(before.values())

    def add(self, rows: Iterable[Row]) -> None:
        """Rows that are there to stay when this returns. Raises OSError: they may be there or not."""
        rows = list(rows)
        table = schema.table(rows, self._metadata)
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        self._number += 1
        name = f"{self._number:06d}-{uuid.uuid4().hex[:8]}.rows"
        self._store.make_folder(FOLDER)
        self._store.write(f"{FOLDER}/{name}", framed(MAGIC, sink.getvalue().to_pybytes()))
        self._left[name] = len(rows)
        self._file |= dict.fromkeys(map(key_of, rows), name)

    def forget(self, keys: Iterable[Key]) -> None:
        """Rows that are committed. Their files go with the next ``tidy``."""
        for key in keys:
            if (name := self._file.pop(key, None)) is not None:
                self._left[name] -= 1

    def tidy(self) -> None:
        """Remove the files of which all rows are committed. Raises OSError; the next call tries again."""
        dead = [name for name, left in self._left.items() if not left]
        self._store.delete(f"{FOLDER}/{name}" for name in dead)
        for name in dead:
            del self._left[name]

    def _load(self, done: Container[Key]) -> None:
        names = self._store.list(FOLDER)
        self._store.delete(f"{FOLDER}/{name}" for name in names if is_temporary(name))
        for number, name in sorted((int(m[1]), n) for n in names if (m := NAME.fullmatch(n))):
            self._number = number
            self._left[name] = 0
            where = self._store.locate(f"{FOLDER}/{name}")
            try:
                rows = self._decode(self._store.read(f"{FOLDER}/{name}"))
            except ValueError as error:
                log.warning("%s: %s; its rows are decoded again", where, one_line(error))
                continue
            except OSError as error:
                raise ConfigError(f"{where}: cannot be read ({one_line(error)}); try again") from error
            for row in rows:
                # One that was written twice, as the first write seemed to fail, is there once.
                if (key := key_of(row)) not in done and key not in self._file:
                    self._before[key], self._file[key] = row, name
                    self._left[name] += 1

    def _decode(self, data: bytes) -> list[Row]:
        """Raises ValueError: not a whole file of this run."""
        table = pa.ipc.open_stream(unframed(MAGIC, data)).read_all()
        if (table.schema.metadata or {}).get(PART_OF) != self._metadata[PART_OF.decode()].encode():
            raise ValueError("of another run")
        rows: list[Row] = table.drop_columns([schema.TOKENS]).to_pylist()
        for row, tokens in zip(rows, table[schema.TOKENS], strict=True):
            row[schema.TOKENS] = array("i", tokens.values.to_numpy().tobytes())
        return rows


def key_of(row: Mapping[str, Any]) -> Key:
    return row["problem_id"], row["sample"]
