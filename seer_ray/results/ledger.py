"""Which rows are committed, and in which part each of them is.

A commit writes a part, then a ledger entry of the same stem that names it; only what an entry names is there.
A compaction writes the rows of many parts once more, then an entry that supersedes theirs, then deletes them.
So a crash leaves at most one part without an entry, the newest, and entries that a newer one supersedes: both
are ignored by readers, and removed by the next writer. Entries are files of their own, as object stores
cannot append.

An entry has a checksum, the run that it is of, and the digest of its part (``seal``). Any other part without
an entry has lost it: readers say so, and the next writer makes the entry again from the part's own keys.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
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
    Key,
    entry_name,
    order,
    parquet,
    part_keys,
    part_name,
    read_part,
)
from seer_ray.results.orphans import Verdict, judge, orphans, restored
from seer_ray.results.seal import ForeignError
from seer_ray.results.store import Store, is_temporary

log = logging.getLogger(__name__)

FULL_PART_BYTES = 128 << 20
"""Compaction leaves parts of at least half of this alone and makes none that is much larger."""


class Ledger:
    """The committed rows of a run folder. Without ``load`` it knows nothing; writers call ``clean`` next.

    Args:
        store: the folder.
        metadata: of its parts; says which run it is.
        sealed: all entries have checksums: the folder is not from before there were any.
    """

    def __init__(self, store: Store, metadata: dict[str, str], sealed: bool = True) -> None:
        self.store = store
        self.metadata = metadata
        self.run_id, self.sealed = metadata["seer_ray.run_id"], sealed
        self.live: dict[str, Entry] = {}
        """Stem -> entry, in order of commit."""
        self._known: dict[str, Entry] = {}
        self._where: dict[Key, str] = {}
        self._uncertain = False
        """A write failed: what it left behind is not known."""
        self._verified: set[str] = set()
        """Stems of parts that were compared with their digests."""

    @property
    def keys(self) -> set[Key]:
        return set(self._where)

    @property
    def in_order(self) -> list[Key]:
        """The keys in order of commit, as rows are read."""
        return [key for entry in self.live.values() for key in entry.keys]

    def load(self) -> None:
        """Read the entries that are there now and check that their parts are.

        Raises:
            ConfigError: an entry that is torn, changed, lost or of another run, a part missing or of another
                size, a row committed twice.
        """
        for stem, foreign in self._look().items():
            raise foreign or ConfigError(
                f"{self.store.locate(entry_name(stem))}: missing; give the run's command again, or seer-ray "
                f"resume {self.store.uri}: it is made again from {part_name(stem)}"
            )

    def recover(self) -> None:
        """The same for the writer: entries that are gone are made again from their parts.

        Raises:
            ConfigError: as ``load``; a part without an entry holds some rows that are elsewhere too.
        """
        for stem, foreign in self._look().items():
            if foreign is not None:
                raise foreign
            self._restore(stem)

    def clean(self) -> None:
        """Remove what crashes left: temporary files, superseded parts, and the part without an entry."""
        self._uncertain = True
        self._remove(sorted(set(self._known) - set(self.live)))
        self.store.delete(part_name(stem) for stem in orphans(self.store.list(PARTS), self._known))
        for folder in ("", f"{PARTS}/", f"{ENTRIES}/"):
            self.store.delete(folder + name for name in self.store.list(folder) if is_temporary(name))
        self._uncertain = False

    def commit(self, table: pa.Table, keys: Sequence[Key]) -> None:
        """Add rows, whose keys these are: all of them are there for good when this returns.

        Raises:
            ValueError: a row is committed already, or twice in the table.
            OSError: the disk or the object store. Whether the rows are there, ``load`` tells.
        """
        self.settle()
        seen: set[Key] = set()
        for key in keys:
            if key in self._where or key in seen:
                raise ValueError(f"problem {key[0]}, sample {key[1]}: committed already")
            seen.add(key)
        if keys:
            self._add(table, keys, ())

    def compact(self) -> None:
        """Merge small parts into few. Does nothing where there is nothing to merge."""
        self.settle()
        for group in self._groups():
            keys = [key for stem in group for key in self.live[stem].keys]
            self._add(self._concat(group, None), keys, group)
            self._uncertain = True
            self._remove(group)
            self._uncertain = False

    def settle(self) -> None:
        """After a write that failed: find out what it left behind."""
        if self._uncertain:
            self.recover()
            self.clean()

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All committed rows, or some columns of them.

        Raises:
            ConfigError: a part cannot be read.
        """
        empty = schema.schema(self.metadata).empty_table()
        names = list(columns) if columns is not None else empty.column_names
        while True:
            try:
                return self._concat(self.live, names).select(names) if self.live else empty.select(names)
            except FileNotFoundError:
                self.load()

    def pick(self, keys: Iterable[Key], columns: Sequence[str]) -> pa.Table:
        """The rows of some keys, in order of commit: reads one part after the other, of those that hold them.

        Raises:
            ConfigError: a part cannot be read.
        """
        wanted = set(keys)
        while True:
            tables = [schema.schema(self.metadata).empty_table().select(columns)]
            try:
                for stem, entry in self.live.items():
                    places = [place for place, key in enumerate(entry.keys) if key in wanted]
                    if places:
                        tables.append(self._concat([stem], list(columns)).take(places))
                return pa.concat_tables(tables)
            except FileNotFoundError:
                self.load()

    def _look(self) -> dict[str, Verdict]:
        """Read the entries that are there now; the parts that have lost theirs, or are of another run."""
        stems = self._stems()
        while True:
            try:
                self._read(stems)
                parts = self.store.list(PARTS)
                self._check_parts(parts)
                found = self._lost(parts)
                if not found:
                    return found
                trouble: Exception | None = None
            except (FileNotFoundError, ConfigError) as error:
                trouble = error
            # A compaction by another process moves rows on while we look.
            before, stems = stems, self._stems()
            if stems == before:
                if trouble is not None:
                    raise trouble
                return found

    def _lost(self, files: Mapping[str, int]) -> dict[str, Verdict]:
        """Parts without an entry that no crash of a writer leaves so: it leaves one, which is the newest, and
        none in a run that has come to its end."""
        stems = orphans(files, self._known)
        newest = max((order(stem)[0] for stem in self._known), default=0)
        if len(stems) == 1 and order(stems[0])[0] > newest and METRICS not in self.store.list():
            return {}
        return judge(self.store, stems, self._where, self.run_id, self.sealed)

    def _restore(self, stem: str) -> None:
        entry = restored(self.store, stem, self._where)
        self.store.write(entry_name(stem), entry.dump(stem, self.run_id))
        log.warning("%s: was missing; made again from its part", self.store.locate(entry_name(stem)))
        self._known[stem] = entry
        live = {**self.live, stem: entry}
        self.live = {name: live[name] for name in sorted(live, key=order)}
        self._where.update(dict.fromkeys(entry.keys, stem))

    def _stems(self) -> set[str]:
        """Of the entries in the folder. Files of other names are not ours.

        A folder may change while it is listed, and a scan can then miss both what replaced an entry and the
        entry: two scans that agree miss nothing.
        """
        previous: set[str] | None = None
        while True:
            names = {
                name.removesuffix(".json") for name in self.store.list(ENTRIES) if name.endswith(".json")
            }
            stems = {name for name in names if STEM.fullmatch(name)}
            if stems == previous:
                return stems
            previous = stems

    def _read(self, stems: set[str]) -> None:
        new = sorted(stems - set(self._known))
        known = {stem: entry for stem, entry in self._known.items() if stem in stems}
        with ThreadPoolExecutor(1 if self.store.path else 16) as pool:
            known.update(zip(new, pool.map(self._read_entry, new), strict=True))
        gone = {stem for entry in known.values() for stem in entry.supersedes}
        live = {stem: known[stem] for stem in sorted(known, key=order) if stem not in gone}
        where: dict[Key, str] = {}
        for stem, entry in live.items():
            for key in entry.keys:
                if other := where.get(key):
                    raise ConfigError(
                        f"{self.store.locate(PARTS)}: problem {key[0]}, sample {key[1]} is in two parts, "
                        f"{stem} and {other}; restore the folder, or delete {entry_name(stem)} and its part"
                    )
                where[key] = stem
        self._known, self.live, self._where = known, live, where

    def _read_entry(self, stem: str) -> Entry:
        data = self.store.read(entry_name(stem))
        try:
            entry = Entry.parse(data, stem, self.run_id, self.sealed)
            if entry.sha256 is None:
                self._compare(stem, entry)
            return entry
        except ForeignError as error:
            raise ConfigError(
                f"{self.store.locate(entry_name(stem))}: {error} than run.json; restore the one of the two "
                "that was exchanged"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.store.locate(entry_name(stem))}: torn ledger entry ({one_line(error)}); restore it, "
                f"or delete it alone: resuming the run makes it again from {part_name(stem)}"
            ) from error

    def _compare(self, stem: str, entry: Entry) -> None:
        """An entry without a checksum with what its part says. Raises ValueError."""
        try:
            run_id, keys, _ = part_keys(self.store, stem)
        except (OSError, pa.ArrowException, KeyError):
            return  # that is another trouble, and told as such
        if run_id not in (None, self.run_id):
            raise ForeignError("of another run")
        if keys != [(schema.clean(problem), sample) for problem, sample in entry.keys]:
            raise ValueError("names other rows than its part has")

    def _check_parts(self, sizes: Mapping[str, int]) -> None:
        for stem, entry in self.live.items():
            size = sizes.get(part_name(stem).removeprefix(PARTS + "/"))
            if size != entry.size:
                raise self._bad_part(stem, "missing" if size is None else f"{size} bytes, not {entry.size}")

    def _bad_part(self, stem: str, what: str) -> ConfigError:
        rows = self.live[stem].rows
        return ConfigError(
            f"{self.store.locate(part_name(stem))}: {what}; restore it, or delete it and {entry_name(stem)} "
            f"to decode {rows} row{'s' if rows != 1 else ''} again"
        )

    def _add(self, table: pa.Table, keys: Sequence[Key], replaced: Sequence[str]) -> None:
        number = max((order(stem)[0] for stem in self._known), default=0) + 1
        stem = f"{number:06d}-{uuid.uuid4().hex[:8]}"
        data = parquet(table)
        entry = Entry.of(data, keys, replaced)
        self._uncertain = True
        self.store.write(part_name(stem), data)
        self.store.write(entry_name(stem), entry.dump(stem, self.run_id))
        self._uncertain = False
        self._known[stem] = self.live[stem] = entry
        for old in replaced:
            del self.live[old]
        self._where.update(dict.fromkeys(keys, stem))

    def _remove(self, stems: Sequence[str]) -> None:
        # Parts first: an entry without its superseded part is harmless, a part without its entry is not.
        self.store.delete(part_name(stem) for stem in stems)
        self.store.delete(entry_name(stem) for stem in stems)
        for stem in stems:
            self._known.pop(stem, None)

    def _groups(self) -> list[list[str]]:
        groups: list[list[str]] = []
        size = FULL_PART_BYTES
        for stem, entry in self.live.items():
            if entry.size >= FULL_PART_BYTES // 2:
                continue
            if size + entry.size > FULL_PART_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(stem)
            size += entry.size
        return [group for group in groups if len(group) > 1]

    def _concat(self, stems: Iterable[str], columns: list[str] | None) -> pa.Table:
        # The columns that parts of an earlier version lack are null there.
        empty = schema.schema(self.metadata).empty_table()
        tables = [empty if columns is None else empty.select(columns)]
        for stem in stems:
            digest = None if stem in self._verified else self.live[stem].sha256
            try:
                table = read_part(self.store, stem, columns, digest)
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self._bad_part(stem, f"cannot be read ({one_line(error)}); try again") from error
            self._verified.add(stem)
            if table.num_rows != self.live[stem].rows:
                raise self._bad_part(stem, f"{table.num_rows} rows, not {self.live[stem].rows}")
            tables.append(table)
        return pa.concat_tables(tables, promote_options="default")
