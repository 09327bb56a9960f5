"""A run folder: settings, committed rows, partial chains and small JSON files of one run."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from seer_ray.config import identity
from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results import lock, schema, selections
from seer_ray.results.base import HeldFolder
from seer_ray.results.entry import ENTRIES, PARTS, Key
from seer_ray.results.ledger import Ledger
from seer_ray.results.progress import FOLDER as PROGRESS
from seer_ray.results.progress import ProgressLog
from seer_ray.results.selections import Recording
from seer_ray.results.store import Store, join, open_store

__all__ = ["RunFolder", "join"]

RUN, CONFIG = "run.json", "config.yaml"
TRACKING = "tracking"
"""What MLflow is told, before it is told (``seer_ray.tracking``)."""


class RunFolder(HeldFolder):
    """``open`` to write (one process at a time), ``view`` to look (any number, at any time).

    A path or any pyarrow filesystem URI. Rows are there whole or not at all; see ``ledger`` and ``progress``
    for what a crash leaves.
    """

    def __init__(self, store: Store, about: dict[str, Any], held: lock.Lock | None) -> None:
        """Use ``open`` or ``view``."""
        super().__init__(store, held)
        self.run_id: str = about["run_id"]
        """Of this folder, for life."""
        self.config: dict[str, Any] = about["config"]
        """Resolved options of the command that began the run."""
        self.config_digest: str = about["config_digest"]
        self._ledger = Ledger(
            store, {"seer_ray.run_id": self.run_id, "seer_ray.config_digest": self.config_digest}
        )
        self._ledger.load()

    @classmethod
    def open(cls, uri: str, config_yaml: str) -> RunFolder:
        """Make the folder, or go on in it, as the one process that writes.

        Args:
            uri: of the run's own folder.
            config_yaml: the resolved config.

        Raises:
            ConfigError: cannot be written, in use, made with other settings, torn, or not a run folder.
        """
        config = identity.parse(config_yaml, CONFIG)
        store = open_store(uri)
        try:
            return cls._open(store, config, config_yaml)
        except OSError as error:
            raise ConfigError(
                f"results.folder: cannot write {store.uri} ({one_line(error)}); choose a writable folder"
            ) from error

    @classmethod
    def _open(cls, store: Store, config: dict[str, Any], config_yaml: str) -> RunFolder:
        _refuse_strangers(store)
        for name in ("", PARTS, ENTRIES, PROGRESS):
            store.make_folder(name)
        held = lock.acquire(store)
        try:
            about = _read_about(store)
            same = about is not None and identity.digest(about["config"]) == identity.digest(config)
            if about is None or (not same and _is_unused(store)):
                about = _begin(store, config)
                store.write(CONFIG, config_yaml.encode())
            identity.refuse_differences(config, about["config"], store.uri)
            if CONFIG not in store.list():
                store.write(CONFIG, config_yaml.encode())
            folder = cls(store, about, held)
            folder._ledger.clean()
            selections.clean(store)
        except BaseException:
            held.release()
            raise
        return folder

    @classmethod
    def view(cls, uri: str) -> RunFolder:
        """Look at a run, finished or not, without disturbing it.

        Raises:
            ConfigError: no run folder there, or a torn one.
        """
        store = open_store(uri)
        try:
            about = _read_about(store)
        except OSError as error:
            raise ConfigError(f"{store.uri}: cannot be read ({one_line(error)})") from error
        if about is None:
            raise ConfigError(f"{store.uri}: no run folder here (no {RUN} in it)")
        return cls(store, about, None)

    @property
    def config_yaml(self) -> str:
        """The resolved config of the command that began the run. Raises ConfigError if it is gone."""
        try:
            return self.store.read(CONFIG).decode()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.store.locate(CONFIG)}: missing or torn; delete it and give the run's command again"
            ) from error

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

    def compact(self) -> None:
        """Merge small parts into few. Each row is there once, whenever this is interrupted."""
        self._writing().check()
        self._ledger.compact()

    def committed(self) -> set[Key]:
        """(problem id, sample) of all rows that are there. A view looks anew each time."""
        if self._lock is None:
            self._ledger.load()
        else:
            self._ledger.settle()
        return self._ledger.keys

    def in_order(self) -> list[Key]:
        """(problem id, sample) of all rows that are there, in the order of their commits."""
        self.committed()
        return self._ledger.in_order

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All committed rows, in the order of their commits, or some columns of them.

        Raises:
            ConfigError: a part is missing or cannot be read; names it and the remedy.
        """
        self.committed()
        return self._ledger.read(columns)

    def write_selection(self, key: Key, recording: Recording) -> None:
        """Which blocks a chain attended, before its row is committed. May be written again until then."""
        self._writing().check()
        selections.write(self.store, key, recording)

    def recorded(self) -> list[Key]:
        """The committed rows whose block selections are there, in order of commit."""
        return selections.recorded(self.store, self.in_order())

    def read_selection(self, key: Key) -> Recording:
        """Which blocks a chain attended.

        Raises:
            ConfigError: it is not there, or cannot be read.
        """
        return selections.read(self.store, key)

    def progress(self) -> ProgressLog:
        """Partial tokens of requests, named ``<problem>/<sample>``, that are not committed."""
        self._writing()
        return ProgressLog(self.store, {f"{problem}/{sample}" for problem, sample in self.committed()})

    def write_json(self, name: str, value: Any) -> None:
        """Create or replace a small file such as ``status.json``, atomically."""
        if not re.fullmatch(r"[a-z_]+\.json", name) or name == RUN:
            raise ValueError(f"{name}: not a name for a JSON file here")
        self._writing()
        self.store.write(name, json.dumps(value, indent=1).encode())

    def read_json(self, name: str) -> Any:
        """None if it is not there. Raises ConfigError if it is torn."""
        return self.store.read_json(name, "restore it from a copy, or delete it")

    def _writing(self) -> lock.Lock:
        if self._lock is None:
            raise ValueError(f"{self.uri}: opened to look, not to write")
        return self._lock


def _refuse_strangers(store: Store) -> None:
    """Files that are not ours may be in a run folder; what looks like ours, without our mark, may not."""
    names = store.list()
    found = [CONFIG] if CONFIG in names else [f"{name}/" for name in (PARTS, ENTRIES) if store.list(name)]
    if "sweep.json" in names:
        raise ConfigError(f"{store.uri}: not a run folder but a sweep's; give the run another name")
    if found and RUN not in names:
        raise ConfigError(
            f"{store.uri}: not a run folder: it has {found[0]} but no {RUN}; give the run another name"
        )


def _is_unused(store: Store) -> bool:
    """Not a token was made here: the command before this one had a bad option, and nothing is lost by
    beginning anew with the corrected one."""
    return not any(store.list(folder) for folder in (PARTS, ENTRIES, PROGRESS))


def _begin(store: Store, config: dict[str, Any]) -> dict[str, Any]:
    about = {
        "version": schema.VERSION,
        "run_id": uuid.uuid4().hex,
        "created_at": time.time(),
        "config_digest": identity.digest(config),
        "config": config,
    }
    store.delete(f"{TRACKING}/{name}" for name in store.list(TRACKING))  # of a run that never was
    store.write(RUN, json.dumps(about, indent=1).encode())
    return about


def _read_about(store: Store) -> dict[str, Any] | None:
    about = store.read_json(RUN, "restore it from a copy")
    if about is None:
        return None
    if not isinstance(about, dict) or not {"version", "run_id", "config", "config_digest"} <= set(about):
        raise ConfigError(f"{store.locate(RUN)}: not written by seer-ray; give the run another name")
    if about["version"] > schema.VERSION:
        raise ConfigError(
            f"{store.uri}: made by a newer seer-ray (format {about['version']}); upgrade to use it"
        )
    return about
