"""The results of a study, cell by cell: one Parquet file for each, which any reader of Parquet sees whole or
not at all.

A cell's file is written once. Its name and its metadata say what the cell is; its rows are a function of that
and of the job's settings, so what is there is not made again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.job import CELLS, JobFolder
from seer_ray.results.store import ABSENT

ABOUT, SECONDS, RUN = b"cell", b"seconds", b"run_id"
Row = dict[str, Any]


class Cells:
    """Those of one folder. Only who holds the folder commits.

    Args:
        folder: of the job.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._store, self._run_id = folder.store, folder.run_id
        self._there = set(self._store.list(CELLS))

    def __contains__(self, id: str) -> bool:
        return _file(id) in self._there

    def __len__(self) -> int:
        return len(self._there)

    def commit(self, id: str, about: Mapping[str, Any], rows: Sequence[Row], seconds: float) -> None:
        """All rows of a cell, there for good when this returns.

        Args:
            id: of the cell; letters, digits and ``. _ = + -``.
            about: what it is, as JSON has it.
            rows: at least one, of the same columns.
            seconds: that they took.

        Raises:
            Conflict: another process has committed it.
            OSError: the disk or the object store.
        """
        table = pa.Table.from_pylist(list(rows))
        marks = {ABOUT: _text(about), SECONDS: f"{seconds:.3f}", RUN: self._run_id}
        out = io.BytesIO()
        parquet.write_table(
            table.replace_schema_metadata(marks), out, compression="zstd", write_page_checksum=True
        )
        self._store.make_folder(CELLS)
        self._store.put(f"{CELLS}/{_file(id)}", out.getvalue(), ABSENT)
        self._there.add(_file(id))

    def read(self, id: str, about: Mapping[str, Any]) -> list[Row]:
        """The rows of a cell that is there.

        Raises:
            ConfigError: its file is torn, changed, or another run's.
        """
        table = self._table(_file(id))
        marks = table.schema.metadata or {}
        if marks.get(RUN) != self._run_id.encode() or marks.get(ABOUT) != _text(about).encode():
            raise ConfigError(f"{self._where(id)}: is another job's; delete it to have it measured again")
        return table.to_pylist()

    def seconds(self) -> dict[str, float]:
        """What the cells that are there took, by id."""
        found = {}
        for name in sorted(self._there):
            marks = self._table(name).schema.metadata or {}
            found[name.removesuffix(".parquet")] = float(marks.get(SECONDS, b"nan"))
        return found

    def _table(self, name: str) -> pa.Table:
        data = self._store.read(f"{CELLS}/{name}")
        try:
            return parquet.read_table(io.BytesIO(data), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            where = self._store.locate(f"{CELLS}/{name}")
            reason = one_line(error)
            raise ConfigError(f"{where}: torn ({reason}); delete it to have it measured again") from error

    def _where(self, id: str) -> str:
        return self._store.locate(f"{CELLS}/{_file(id)}")


def _file(id: str) -> str:
    return f"{id}.parquet"


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True)
