"""The folder of a job: a mark that says what it is, its options, small JSON files; one process writes it.

A folder has one of three marks: ``run.json`` (``results.folder``), ``sweep.json`` (``results.sweep``) or
``training.json`` (``results.job``: training and measuring).
"""

from __future__ import annotations

import json
import re
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from seer_ray.config.compose import to_yaml
from seer_ray.config.errors import ConfigError, one_line
from seer_ray.config.identity import Identity
from seer_ray.config.options import JobConfig
from seer_ray.results import lock
from seer_ray.results.store import Store, open_store

CONFIG = "config.yaml"
METRICS = "metrics.json"
"""What the job came to; there once it is done."""
TRACKING = "tracking"
"""What MLflow is told, before it is told (``seer_ray.tracking``)."""
MARKS = {"run.json": "run", "sweep.json": "sweep", "training.json": "job"}
"""File that says what a folder is -> what it is."""
RESTORE = "restore it from a copy"


class Folder:
    """``open`` to write (one process at a time), ``view`` to look (any number, at any time).

    A path or any pyarrow filesystem URI. Usable as a context manager.
    """

    mark: ClassVar[str]
    """Key of ``MARKS``."""
    version: ClassVar[int] = 1
    """Of what is in the folder. One of a newer version is refused."""
    folders: ClassVar[tuple[str, ...]] = ()
    """That are made with it."""
    ours: ClassVar[tuple[str, ...]] = ()
    """Files and folders (``name/``) that only such a folder has, beside its config."""
    keys: ClassVar[frozenset[str]] = frozenset({"version", "run_id", "config"})
    """That the mark has at least."""

    def __init__(self, store: Store, about: dict[str, Any], held: lock.Lock | None) -> None:
        """Use ``open`` or ``view``."""
        self.store, self.about, self._lock = store, about, held

    @classmethod
    def open(cls, uri: str, config: JobConfig) -> Self:
        """Make the folder, or go on in it, as the one process that writes.

        Args:
            uri: of the job's own folder.
            config: all options.

        Raises:
            ConfigError: cannot be written, in use, made with other settings, torn, or something else.
        """
        store = open_store(uri)
        try:
            cls._refuse_strangers(store)
            for name in ("", *cls.folders):
                store.make_folder(name)
            held = lock.acquire(store)
            try:
                folder = cls(store, cls._settle(store, config), held)
                folder._clean()
            except BaseException:
                held.release()
                raise
            return folder
        except OSError as error:
            raise ConfigError(
                f"results.folder: cannot write {store.uri} ({one_line(error)}); choose a writable folder"
            ) from error

    @classmethod
    def view(cls, uri: str) -> Self:
        """Look at a job, finished or not, without disturbing it.

        Raises:
            ConfigError: no such folder there, or a torn one.
        """
        store = open_store(uri)
        try:
            about = cls._read_mark(store)
        except OSError as error:
            raise ConfigError(f"{store.uri}: cannot be read ({one_line(error)})") from error
        if about is None:
            raise ConfigError(f"{store.uri}: no {MARKS[cls.mark]} here (no {cls.mark} in it)")
        return cls(store, about, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def uri(self) -> str:
        """The folder in messages: no secrets in it."""
        return self.store.uri

    @property
    def path(self) -> Path | None:
        """The folder on the local disk, if it is there."""
        return self.store.path

    @property
    def run_id(self) -> str:
        """Of this folder, for life."""
        return str(self.about["run_id"])

    @property
    def config(self) -> dict[str, Any]:
        """Resolved options of the command that began the job."""
        return self.about["config"]

    @property
    def config_yaml(self) -> str:
        """The same as text. Raises ConfigError if it is gone."""
        try:
            return self.store.read(CONFIG).decode()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.store.locate(CONFIG)}: missing or torn; delete it and give the job's command again"
            ) from error

    @property
    def unused(self) -> bool:
        """Whether nothing was made here yet: what it was to be made of may still change."""
        return self._unused(self.store)

    def metrics(self) -> dict[str, Any] | None:
        """What the job came to; None: it is not done."""
        return self.read_json(METRICS)

    def write_json(self, name: str, value: Any) -> None:
        """Create or replace a small file such as ``status.json``, atomically. Raises OSError."""
        if not re.fullmatch(r"[a-z_]+\.json", name) or name == self.mark:
            raise ValueError(f"{name}: not a name for a JSON file here")
        self._writing()
        self.store.write(name, json.dumps(value, indent=1).encode())

    def read_json(self, name: str) -> Any:
        """None if it is not there. Raises ConfigError if it is torn."""
        return self.store.read_json(name, f"{RESTORE}, or delete it")

    def _writing(self) -> lock.Lock:
        if self._lock is None:
            raise ValueError(f"{self.uri}: opened to look, not to write")
        return self._lock

    # -- what kinds of folders differ in -------------------------------------------------------------

    @classmethod
    def _about(cls, identity: Identity) -> dict[str, Any]:
        """What the mark of a new folder says of it."""
        return {"run_id": uuid.uuid4().hex, "config": identity.config}

    @classmethod
    def _unused(cls, store: Store) -> bool:
        """Whether nothing was made here: the command before this one had a bad option, and nothing is lost by
        beginning anew with the corrected one."""
        return False

    def _clean(self) -> None:
        """Remove what a crash left, as the one who writes."""

    # -- the mark ------------------------------------------------------------------------------------

    @classmethod
    def _refuse_strangers(cls, store: Store) -> None:
        """Files that are not ours may be in the folder; what looks like ours, without our mark, may not."""
        names, what = store.list(), MARKS[cls.mark]
        if cls.mark in names:
            return
        for other in MARKS.keys() & names.keys():
            raise ConfigError(
                f"{store.uri}: the folder of a {MARKS[other]}, not of a {what}; give the {what} another name"
            )
        there = [name for name in (CONFIG, *cls.ours) if name in names or store.list(name.rstrip("/"))]
        if there:
            raise ConfigError(
                f"{store.uri}: not a {what} folder: it has {there[0]} but no {cls.mark}; "
                f"give the {what} another name"
            )

    @classmethod
    def _settle(cls, store: Store, config: JobConfig) -> dict[str, Any]:
        """What the folder is about: noted, or compared with what is noted there."""
        mine, about = Identity.of(config), cls._read_mark(store)
        noted = about.get("config") if about is not None else None
        theirs = Identity(noted, type(config)) if noted is not None else mine
        if about is None or (theirs.digest != mine.digest and cls._unused(store)):
            store.delete(f"{TRACKING}/{name}" for name in store.list(TRACKING))  # of a job that never was
            about = {
                "version": cls.version,
                "written_by": f"seer-ray {version('seer-ray')}",
                "created_at": time.time(),
                **cls._about(mine),
            }
            store.write(cls.mark, json.dumps(about, indent=1).encode())
            store.write(CONFIG, to_yaml(config).encode())
        else:
            mine.refuse_differences(theirs, store.uri)
            if CONFIG not in store.list():
                store.write(CONFIG, to_yaml(config).encode())
        return about

    @classmethod
    def _read_mark(cls, store: Store) -> dict[str, Any] | None:
        about = store.read_json(cls.mark, RESTORE)
        if about is None:
            return None
        if not isinstance(about, dict) or not cls.keys <= about.keys():
            raise ConfigError(
                f"{store.locate(cls.mark)}: not written by seer-ray; give the {MARKS[cls.mark]} another name"
            )
        if about["version"] > cls.version:
            writer = about.get("written_by", "a newer seer-ray")
            raise ConfigError(f"{store.uri}: made by {writer} (format {about['version']}); upgrade to use it")
        return about
