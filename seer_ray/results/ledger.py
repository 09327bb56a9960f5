"""The committed rows of a run: those of the parts that are there, which any reader of Parquet sees too.

One fact: a part's file. It is replaced as a whole, so whoever lists the folder, at whatever moment, finds
each committed row once. A row stays in the part in which it was committed:

- a commit puts its rows at the end of the last part; one that is full is followed by a new one;
- rows that are to be made again are taken out of their part, those that are graded again are changed in it.

Each is one rename, or one conditional PUT where there are no renames. All commits of a run change its last
part, or make the next number: of two writers that think they hold the folder, the second one's write fails.

Beside a part stands an entry, a file of its own, that says which contents the part may have: the one that is
there, and the one that is about to be. It is written first; so a part that no entry knows was changed or is
another run's, and an entry without its part tells that the part was lost, unless it was never there. An entry
that is gone is made again from its part.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from seer_ray.results.entry import (
    ENTRIES,
    FENCE,
    FULL,
    PARTS,
    Content,
    Entry,
    Part,
    entry_name,
    order,
    parquet,
    part_name,
)
from seer_ray.results.keys import Key, KeyColumns
from seer_ray.results.orphans import restored
from seer_ray.results.store import ABSENT, Conflict, Store, is_temporary
from seer_ray.results.view import TRIES, Rows

log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
"""Of rows in memory, from which on a part is full. A commit writes at most so much again."""


class Ledger(Rows):
    """The same for the one process that writes, which calls ``recover`` first; see ``Rows``."""

    def __init__(self, store: Store, metadata: dict[str, str], sealed: bool = True) -> None:
        super().__init__(store, metadata, sealed)
        self._last: tuple[Content, pa.Table] | None = None
        """The last part and its rows, as this process has written them."""
        self._uncertain = False
        """A write failed: what it left behind is not known."""

    def recover(self) -> None:
        """The same for the writer: entries that are gone are made again, and what crashes left is removed.

        Raises:
            ConfigError: as ``load``; a part without an entry holds some rows that are elsewhere too.
        """
        self._uncertain = True
        for stem, foreign in self._look().items():
            if foreign is not None:
                raise foreign
            self._restore(stem)
        # Parts first: an entry without its superseded part is harmless, a part without its entry is not.
        dead = sorted(set(self._seen) - set(self.parts))
        self.store.delete(map(part_name, (*dead, *self._copies)))
        self.store.delete(map(entry_name, dead))
        for stem in dead:
            self._seen.pop(stem)
        for folder in ("", f"{PARTS}/", f"{ENTRIES}/"):
            self.store.delete(folder + name for name in self.store.list(folder) if is_temporary(name))
        for stem in list(self._begun):
            # Whoever began it may be asleep, and wake up: its number is taken.
            try:
                self._put(stem, self._table([]), {})
            except Conflict:
                return self.recover()
        self._uncertain = False
        return None

    def fence(self) -> None:
        """Make what a writer that is asleep is about to write come too late: every entry that it would change
        is another than it has seen; so is every part whose change it has begun.

        Raises:
            ConfigError, OSError: as ``recover`` and ``commit``.
        """
        unique = uuid.uuid4().hex
        for _ in range(TRIES):
            try:
                for stem, part in list(self.parts.items()):
                    if part.entry.fence == unique:
                        continue
                    if part.content != part.entry.contents[-1]:
                        rows = self._table([self._rows(part, None)])
                        self._put(stem, rows, {**part.marks, FENCE: unique})
                    else:
                        entry = replace(part.entry, contents=(part.content,), supersedes=(), fence=unique)
                        self._name(stem, entry)
                        self._seen[stem] = self.parts[stem] = replace(part, entry=entry)
                return
            except Conflict:
                self.recover()
        raise Conflict(f"{self.store.uri}: another process goes on writing; stop it")

    def settle(self) -> None:
        """After a write that failed: find out what it left behind."""
        if self._uncertain:
            self.recover()

    def commit(self, table: pa.Table, keys: Sequence[Key]) -> None:
        """Add rows, whose keys these are: all of them are there for good when this returns.

        Raises:
            ValueError: a row is committed already, or twice in the table.
            OSError: the disk or the object store. Whether the rows are there, ``load`` tells.
        """
        self.settle()
        seen: set[Key] = set()
        for key in keys:
            if key in self._there or key in seen:
                raise ValueError(f"problem {key[0]}, sample {key[1]}: committed already")
            seen.add(key)
        if not keys:
            return
        last = next(reversed(self.parts.values()), None)
        if last is None or FULL in last.marks:
            number = max((order(stem)[0] for stem in (*self._seen, *self._begun)), default=0) + 1
            self._put(f"{number:06d}", table, {})
            return
        rows = self._last[1] if self._last and self._last[0] == last.content else self._rows(last, None)
        self._put(last.stem, self._table([rows, table]), last.marks)

    def change(self, stem: str, change: Callable[[pa.Table], pa.Table], marks: Mapping[str, str]) -> None:
        """Put other rows in place of a part's, all at once.

        Args:
            stem: of the part.
            change: from the rows that are there to those that will be, with no key that was not there.
            marks: of the part, added to its own.

        Raises:
            OSError: the disk or the object store. Which rows are there, ``load`` tells.
        """
        self.settle()
        part = self.parts[stem]
        self._put(stem, self._table([change(self._table([self._rows(part, None)]))]), {**part.marks, **marks})

    def _restore(self, stem: str) -> None:
        part = restored(self.store, stem, self._tags()[stem], self._there)
        self._name(stem, part.entry)
        log.warning("%s: was missing; made again from its part", self.store.locate(entry_name(stem)))
        self._know(part)

    def _know(self, part: Part) -> None:
        self._seen[part.stem] = part
        parts = {**self.parts, part.stem: part}
        self.parts = {name: parts[name] for name in sorted(parts, key=order)}
        for key in part.keys:
            self._there.add(key)

    def _put(self, stem: str, table: pa.Table, marks: Mapping[str, str]) -> None:
        """Make or replace a part: first the entry that names both contents, then the part."""
        was, begun = self._seen.get(stem), self._begun.get(stem)
        if table.nbytes >= PART_BYTES:
            marks = {**marks, FULL: "1"}
        data = parquet(table.replace_schema_metadata({**(table.schema.metadata or {}), **marks}))
        content = Content.of(data, table.num_rows)
        # What others have begun may still come to be.
        known = (was.content, *was.entry.contents[1:]) if was is not None else begun.contents if begun else ()
        self._uncertain = True
        fence = was.entry.fence if was is not None else ""
        self._name(stem, Entry(tuple(dict.fromkeys((*known, content))), was is not None, fence))
        tag = self.store.put(part_name(stem), data, was.tag if was is not None else ABSENT)
        self._uncertain = False
        self._begun.pop(stem, None)
        for key in was.keys if was is not None else ():
            self._there.discard(key)
        self._know(Part(stem, tag, Entry((content,), True, fence), content, KeyColumns([table]), dict(marks)))
        self._last = (content, table) if FULL not in marks else None

    def _name(self, stem: str, entry: Entry) -> None:
        """Write an entry, unless another process has since it was seen. Raises OSError."""
        data, tag = entry.dump(stem, self.run_id), self._tags_of_entries.get(stem, ABSENT)
        self._tags_of_entries[stem] = self.store.put(entry_name(stem), data, tag)
