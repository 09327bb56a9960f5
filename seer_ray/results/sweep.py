"""A sweep folder: its settings, and an index of the run folders of its points."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

from seer_ray.config import identity
from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results import lock
from seer_ray.results.base import HeldFolder
from seer_ray.results.folder import CONFIG, RUN
from seer_ray.results.store import Store, join, open_store

INDEX = "sweep.json"
POINTS = "points"
VERSION = 1


class SweepFolder(HeldFolder):
    """``open`` to write (one process at a time), ``view`` to look. Points are ordinary run folders below.

    ``sweep.json`` holds ``name``, ``points`` (a list of mappings with ``slug``, ``overrides``, ``baseline``,
    ``plan``, ``state``, ``error`` and more: see ``jobs.sweep``) and what identifies the sweep.
    """

    def __init__(self, store: Store, index: dict[str, Any], held: lock.Lock | None) -> None:
        """Use ``open`` or ``view``."""
        super().__init__(store, held)
        self.index = index
        try:
            self.config_yaml = store.read(CONFIG).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            self.config_yaml = ""

    @classmethod
    def open(cls, uri: str) -> SweepFolder:
        """Make the folder, or go on in it, as the one process that writes.

        Raises:
            ConfigError: cannot be written, in use, or something else than a sweep.
        """
        store = open_store(uri)
        try:
            if RUN in store.list():
                raise ConfigError(f"{store.uri}: a run, not a sweep; give the sweep another name")
            if CONFIG in store.list() and INDEX not in store.list():
                raise ConfigError(f"{store.uri}: not a sweep folder: it has {CONFIG} but no {INDEX}")
            store.make_folder()
            store.make_folder(POINTS)
            held = lock.acquire(store)
            try:
                index = _read_index(store)
                if index is None:
                    index = {
                        "version": VERSION,
                        "sweep_id": uuid.uuid4().hex,
                        "created_at": time.time(),
                        "points": [],
                    }
                    store.write(INDEX, json.dumps(index, indent=1).encode())
                return cls(store, index, held)
            except BaseException:
                held.release()
                raise
        except OSError as error:
            raise ConfigError(
                f"results.folder: cannot write {store.uri} ({one_line(error)}); choose a writable folder"
            ) from error

    @classmethod
    def view(cls, uri: str) -> SweepFolder:
        """Look at a sweep, finished or not.

        Raises:
            ConfigError: no sweep there, or a torn one.
        """
        store = open_store(uri)
        index = _read_index(store)
        if index is None:
            raise ConfigError(f"{store.uri}: no sweep here (no {INDEX} in it)")
        return cls(store, index, None)

    @property
    def run_id(self) -> str:
        """Of this folder, for life."""
        return str(self.index["sweep_id"])

    @property
    def config(self) -> dict[str, Any]:
        """Resolved options of the sweep."""
        return identity.parse(self.config_yaml, CONFIG) if self.config_yaml else {}

    @property
    def points(self) -> list[dict[str, Any]]:
        """The points, as the index tells."""
        return list(self.index["points"])

    def write_config(self, config_yaml: str) -> None:
        """The options with all points spelled out."""
        self.store.write(CONFIG, config_yaml.encode())
        self.config_yaml = config_yaml

    def write_points(self, points: list[dict[str, Any]]) -> None:
        """Bring the index up to date."""
        self.index = {**self.index, "points": points}
        self.store.write(INDEX, json.dumps(self.index, indent=1).encode())

    def write_json(self, name: str, value: Any) -> None:
        """Create or replace a small file such as ``status.json``, atomically."""
        if not re.fullmatch(r"[a-z_]+\.json", name) or name == INDEX:
            raise ValueError(f"{name}: not a name for a JSON file here")
        self.store.write(name, json.dumps(value, indent=1).encode())

    def read_json(self, name: str) -> Any:
        """None if it is not there. Raises ConfigError if it is torn."""
        return self.store.read_json(name, "restore it from a copy, or delete it")


def point_uri(uri: str, slug: str) -> str:
    """The run folder of a point, given its sweep's."""
    return join(join(uri, POINTS), slug)


def _read_index(store: Store) -> dict[str, Any] | None:
    index = store.read_json(INDEX, "restore it from a copy")
    if index is None:
        return None
    if not isinstance(index, dict) or not {"version", "sweep_id", "points"} <= set(index):
        raise ConfigError(f"{store.locate(INDEX)}: not written by seer-ray; give the sweep another name")
    if index["version"] > VERSION:
        raise ConfigError(f"{store.uri}: made by a newer seer-ray; upgrade to use it")
    return index
