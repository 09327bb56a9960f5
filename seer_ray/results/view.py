"""The committed rows of a run as anybody sees them: see ``ledger``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results import schema
from seer_ray.results.base import METRICS
from seer_ray.results.entry import (
    ENTRIES,
    PARTS,
    STEM,
    Entry,
    Part,
    entry_name,
    order,
    part_name,
    read_part,
    see,
)
from seer_ray.results.keys import Key, KeyColumns, KeySet
from seer_ray.results.orphans import Verdict, judge
from seer_ray.results.seal import ForeignError
from seer_ray.results.store import Store

TRIES = 10
"""Of reading a part that its writer replaces all the while."""


class Rows:
    """The committed rows of a run folder. Without ``load`` it knows nothing.

    Args:
        store: the folder.
        metadata: of its parts; says which run it is.
        sealed: all entries have checksums: the folder is not from before there were any.
    """

    def __init__(self, store: Store, metadata: dict[str, str], sealed: bool = True) -> None:
        self.store = store
        self.metadata = metadata
        self.run_id, self.sealed = metadata["seer_ray.run_id"], sealed
        self.parts: dict[str, Part] = {}
        """By stem, in order of commit."""
        self._seen: dict[str, Part] = {}
        """Those that later ones supersede too (before 0.3)."""
        self._begun: dict[str, Entry] = {}
        """Entries of parts that were never there."""
        self._tags_of_entries: dict[str, str] = {}
        self._copies: list[str] = []
        """Parts without an entry, all of whose rows are in others."""
        self._there = KeySet()

    @property
    def keys(self) -> KeySet:
        """As they are now: they do not change with what is committed."""
        return self._there.copy()

    @property
    def in_order(self) -> KeyColumns:
        """The keys in order of commit, as rows are read."""
        return KeyColumns([table for part in self.parts.values() for table in part.keys.tables])

    def load(self) -> None:
        """See which parts are there now.

        Raises:
            ConfigError: an entry that is torn, changed, lost or of another run, a part missing or changed, a
                row committed twice.
        """
        for stem, foreign in self._look().items():
            raise foreign or ConfigError(
                f"{self.store.locate(entry_name(stem))}: missing; give the run's command again, or seer-ray "
                f"resume {self.store.uri}: it is made again from {part_name(stem)}"
            )

    def batches(
        self, columns: Sequence[str] | None = None, keys: Iterable[Key] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Committed rows in order of commit, or some columns of them; holds one part at a time.

        Args:
            columns: of the schema; None: all.
            keys: only rows that have these; None: all rows.

        Raises:
            ConfigError: a part cannot be read.
        """
        wanted = set(keys) if keys is not None else None
        for stem in list(self.parts):
            part = self.parts.get(stem)
            if part is None or (wanted is not None and wanted.isdisjoint(part.keys)):
                continue
            rows, now = self._table([self._fresh(stem, columns)], columns), self.parts[stem]
            if wanted is not None:
                rows = rows.take([place for place, key in enumerate(now.keys) if key in wanted])
            yield from (batch for batch in rows.to_batches() if batch.num_rows)

    def schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """Of what is read."""
        return self._table([], columns).schema

    def _fresh(self, stem: str, columns: Sequence[str] | None) -> pa.Table:
        """Of a part that its writer may replace meanwhile."""
        for _ in range(TRIES):
            part = self.parts[stem]
            try:
                return self._rows(part, columns)
            except ConfigError:
                self.load()
                if stem not in self.parts or self.parts[stem].tag == part.tag:
                    raise
        return self._rows(self.parts[stem], columns)

    def _rows(self, part: Part, columns: Sequence[str] | None) -> pa.Table:
        try:
            return read_part(self.store, part, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._bad_part(part.stem, error, part.content.rows) from error

    def _table(self, tables: Sequence[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
        """Tables as one of the schema. The columns that parts of an earlier version lack are null there."""
        empty = schema.schema(self.metadata).empty_table()
        empty = empty if columns is None else empty.select(list(columns))
        plain = [table.replace_schema_metadata(None) for table in tables]
        joined = pa.concat_tables([empty, *plain], promote_options="default")
        return joined.select(empty.column_names).cast(empty.schema)

    def _look(self) -> dict[str, Verdict]:
        """See what is there now; the parts that have lost their entries, or are of another run."""
        tags = self._tags()
        while True:
            trouble: Exception | None = None
            lost: dict[str, Verdict] = {}
            try:
                lost = self._see(tags)
            except (FileNotFoundError, ConfigError) as error:
                trouble = error
            # Another process may have written while we looked; a scan, too, can miss what is replaced.
            before, tags = tags, self._tags()
            if tags == before:
                if trouble is not None:
                    raise trouble
                return lost

    def _see(self, tags: Mapping[str, str]) -> dict[str, Verdict]:
        entries = _stems(self.store.tags(ENTRIES), "", ".json")
        named = {stem: tag for stem, tag in tags.items() if stem in entries}
        new = [s for s, tag in named.items() if s not in self._seen or self._seen[s].tag != tag]
        with ThreadPoolExecutor(1 if self.store.path else 16) as pool:
            seen = {stem: self._seen[stem] for stem in named if stem not in new}
            seen.update(zip(new, pool.map(lambda stem: self._open(stem, named[stem]), new), strict=True))
            absent = sorted(set(entries) - set(tags), key=order)
            unseen = dict(zip(absent, pool.map(self._read_entry, absent), strict=True))
        superseded = {stem for part in seen.values() for stem in part.entry.supersedes}
        parts = {stem: seen[stem] for stem in sorted(seen, key=order) if stem not in superseded}
        there = KeySet()
        for stem, part in parts.items():
            for key in part.keys:
                if not there.add(key):
                    other = next(other for other, seen in parts.items() if key in seen.keys)
                    raise ConfigError(
                        f"{self.store.locate(PARTS)}: problem {key[0]}, sample {key[1]} is in two parts, "
                        f"{stem} and {other}; restore the folder, or delete {entry_name(stem)} and its part"
                    )
        self._seen, self.parts, self._there, self._begun = seen, parts, there, {}
        self._tags_of_entries = entries
        for stem, entry in unseen.items():
            if stem not in superseded:
                self._absent(stem, entry)
        lost = sorted(set(tags) - set(named), key=order)
        verdicts = judge(self.store, lost, there, self.run_id, self.sealed)
        self._copies = [stem for stem in lost if stem not in verdicts]
        return verdicts

    def _absent(self, stem: str, entry: Entry) -> None:
        """An entry without its part: of a commit that was begun, and that is the last; else it was lost."""
        newest = max((order(other)[0] for other in self._seen), default=0)
        if entry.committed or order(stem)[0] <= newest or METRICS in self.store.list():
            raise self._bad_part(stem, FileNotFoundError(), entry.contents[0].rows)
        self._begun[stem] = entry

    def _tags(self) -> dict[str, str]:
        """Of the parts in the folder, by stem. Files of other names are not ours."""
        return _stems(self.store.tags(PARTS), "part-", ".parquet")

    def _open(self, stem: str, tag: str) -> Part:
        entry = self._read_entry(stem)
        try:
            return see(self.store, stem, tag, entry)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._bad_part(stem, error, entry.contents[0].rows) from error

    def _read_entry(self, stem: str) -> Entry:
        data = self.store.read(entry_name(stem))
        try:
            return Entry.parse(data, stem, self.run_id, self.sealed)
        except ForeignError as error:
            raise ConfigError(
                f"{self.store.locate(entry_name(stem))}: {error} than run.json; restore the one of the two "
                "that was exchanged"
            ) from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ConfigError(
                f"{self.store.locate(entry_name(stem))}: torn ledger entry ({one_line(error)}); restore it, "
                f"or delete it alone: resuming the run makes it again from {part_name(stem)}"
            ) from error

    def _bad_part(self, stem: str, error: Exception, rows: int) -> ConfigError:
        if isinstance(error, FileNotFoundError):
            what = "missing"
        elif isinstance(error, ValueError) and not isinstance(error, pa.ArrowException):
            what = one_line(error)
        else:
            what = f"cannot be read ({one_line(error)}); try again"
        return ConfigError(
            f"{self.store.locate(part_name(stem))}: {what}; restore it, or delete it and {entry_name(stem)} "
            f"to decode {rows} row{'s' if rows != 1 else ''} again"
        )


def _stems(names: Mapping[str, str] | Mapping[str, int], prefix: str, end: str) -> dict[str, str]:
    found = {}
    for name, said in names.items():
        if name.startswith(prefix) and name.endswith(end):
            stem = name.removeprefix(prefix).removesuffix(end)
            if STEM.fullmatch(stem):
                found[stem] = str(said)
    return found
