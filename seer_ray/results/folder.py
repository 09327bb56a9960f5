"""A run folder: settings, committed rows, partial chains and small JSON files of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from seer_ray.config.identity import Identity
from seer_ray.results import lock, schema, selections
from seer_ray.results.base import METRICS, Folder
from seer_ray.results.entry import ENTRIES, GRADER, PARTS, Part
from seer_ray.results.kept import KeptRows
from seer_ray.results.keys import KEYS, Key, KeyColumns, KeySet, RequestIds
from seer_ray.results.ledger import Ledger
from seer_ray.results.progress import FOLDER as PROGRESS
from seer_ray.results.progress import ProgressLog
from seer_ray.results.selections import Recording
from seer_ray.results.store import Store
from seer_ray.results.ungraded import FOLDER as UNGRADED
from seer_ray.results.ungraded import UngradedRows

RUN = "run.json"
GRADED = "grader.json"
"""What graded the rows since the run was made, if anything did."""


class RunFolder(Folder):
    """Rows are there whole or not at all; see ``ledger`` and ``progress`` for what a crash leaves."""

    mark, version, folders = RUN, schema.VERSION, (PARTS, ENTRIES, PROGRESS, UNGRADED)
    ours = (f"{PARTS}/", f"{ENTRIES}/")
    keys = frozenset({"version", "run_id", "config", "config_digest"})

    def __init__(self, store: Store, about: dict[str, Any], held: lock.Lock | None) -> None:
        """Use ``open`` or ``view``."""
        super().__init__(store, about, held)
        written = {"run_id": self.run_id, "config_digest": self.config_digest}
        metadata = {f"seer_ray.{name}": value for name, value in written.items()}
        self._ledger = Ledger(store, metadata, self.sealed)
        self._kept = KeptRows(self.run_id)
        if held is not None:
            self._ledger.recover()
            if held.taken_over:
                self._ledger.fence()
        else:
            self._ledger.load()

    @property
    def config_digest(self) -> str:
        """Of the options that decide what the rows are."""
        return str(self.about["config_digest"])

    @classmethod
    def _about(cls, identity: Identity) -> dict[str, Any]:
        return super()._about(identity) | {"config_digest": identity.digest}

    @classmethod
    def _unused(cls, store: Store) -> bool:
        return not any(store.list(folder) for folder in cls.folders)

    def _clean(self) -> None:
        self.take_in()
        selections.remove_torn(self.store)

    def commit(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows (see ``schema``) as one part: all are there for good when this returns.

        Raises:
            ValueError: a row that is committed already, or that does not fit the schema.
            OSError: the disk or the object store. The rows may be there or not; ``committed`` tells.
            ConfigError: another process has taken the folder over.
        """
        rows = list(rows)
        table = schema.table(rows, self._ledger.metadata)
        self._writing().check()
        self._ledger.commit(table, [(row["problem_id"], row["sample"]) for row in rows])

    def keep(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep rows on this machine's disk until the folder can be written. Raises OSError."""
        self._kept.add(schema.table(list(rows), self._ledger.metadata))

    def take_in(self) -> None:
        """Commit the rows that wait on this machine, those that are not there yet.

        Raises:
            OSError: the disk or the object store: the others go on waiting.
            ConfigError: another process has taken the folder over, or a file of rows is torn.
        """
        for table in self._kept.take():
            there = self.committed()
            keys = list(zip(*(table[name].to_pylist() for name in KEYS), strict=True))
            self._writing().check()
            new = [key not in there for key in keys]
            self._ledger.commit(table.filter(pa.array(new)), [key for key in keys if key not in there])

    @property
    def kept_rows(self) -> Path | None:
        """Where rows wait on this machine; None: none do."""
        return self._kept.path if self._kept.files else None

    def withdraw(self, keys: Iterable[Key]) -> None:
        """Take rows out that are to be made again: they are not committed any more. Those of a part go at
        once, and what the run came to goes first.

        Raises:
            OSError: the disk or the object store. Some may be gone; ``committed`` tells.
            ConfigError: another process has taken the folder over.
        """
        wanted = KeySet(keys) & self.committed()
        for stem, part in self._changing(wanted):
            kept = pa.array([key not in wanted for key in part.keys])
            self._ledger.change(stem, partial(pa.Table.filter, mask=kept), {})

    def rewrite(self, mark: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Put other values in place of those in all rows, one part after the other; what the run came to goes
        first. Parts that have the mark are done, so that one that was killed goes on where it was.

        Args:
            mark: of these values.
            change: from rows to as many rows, in their order.

        Raises:
            OSError: the disk or the object store.
            ConfigError: another process has taken the folder over.
        """
        for stem, part in self._changing(self.committed()):
            if part.marks.get(GRADER) != mark:
                self._ledger.change(stem, change, {GRADER: mark})

    def _changing(self, keys: Set[Key]) -> Iterator[tuple[str, Part]]:
        """The parts that hold rows, one by one."""
        self._writing().check()
        if keys:
            self.store.delete([METRICS])
        for stem, part in list(self._ledger.parts.items()):
            if not keys.isdisjoint(part.keys):
                self._writing().check()
                yield stem, part

    def committed(self) -> KeySet:
        """(problem id, sample) of all rows that are there. A view looks anew each time."""
        if self._lock is None:
            self._ledger.load()
        else:
            self._ledger.settle()
        return self._ledger.keys

    def in_order(self) -> KeyColumns:
        """(problem id, sample) of all rows that are there, in the order of their commits."""
        self.committed()
        return self._ledger.in_order

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All committed rows, in the order of their commits, or some columns of them; in memory at once.

        Raises:
            ConfigError: a part is missing or cannot be read; names it and the remedy.
        """
        return self.stream(columns).read_all()

    def stream(
        self, columns: Sequence[str] | None = None, keys: Iterable[Key] | None = None
    ) -> pa.RecordBatchReader:
        """Committed rows, in the order of their commits, one part after the other.

        Args:
            columns: of ``schema``; None: all.
            keys: only rows that have these; None: all.

        Raises:
            ConfigError: here or when it is read: a part is missing or cannot be read; names it.
        """
        self.committed()
        batches = self._ledger.batches(columns, keys)
        return pa.RecordBatchReader.from_batches(self._ledger.schema(columns), batches)

    def pick(self, keys: Iterable[Key], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows of some keys, in the order of their commits. Raises as ``stream``."""
        return self.stream(columns, keys).read_all()

    def write_selection(self, key: Key, recording: Recording) -> None:
        """Which blocks a chain attended, before its row is committed. May be written again until then."""
        self._writing().check()
        selections.write(self.store, self.run_id, key, recording)

    def recorded(self) -> list[Key]:
        """The committed rows whose block selections are there, in order of commit."""
        return selections.recorded(self.store, self.in_order())

    def read_selection(self, key: Key) -> Recording:
        """Which blocks a chain attended.

        Raises:
            ConfigError: it is not there, or cannot be read.
        """
        return selections.read(self.store, self.run_id, key, self.sealed)

    def ungraded(self) -> UngradedRows:
        """Finished rows that wait for their grades and are not committed. Raises ConfigError."""
        self._writing()
        return UngradedRows(self.store, self._ledger.metadata, self.committed())

    def progress(self) -> ProgressLog:
        """Partial tokens of requests, named ``<problem>/<sample>``, that are not committed."""
        self._writing()
        return ProgressLog(self.store, self.run_id, RequestIds(self.committed()), self.sealed)
