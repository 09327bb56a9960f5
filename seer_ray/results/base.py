"""The folder of a job: a mark that says what it is, its options, small JSON files; one process writes it.

A folder has one of three marks: ``run.json`` (``results.folder``), ``sweep.json`` (``results.sweep``) or
``training.json`` (``results.job``: training and measuring).
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from seer_ray.config.compose import yaml_of
from seer_ray.config.errors import ConfigError, FolderGone, JobError, NotWritten, one_line
from seer_ray.config.identity import Identity, differences
from seer_ray.config.options import JobConfig
from seer_ray.config.secrets import redacted
from seer_ray.results import lock
from seer_ray.results.seal import CHECKSUM, FILE, RUN_ID, ForeignError, check_seal, is_sealed, seal
from seer_ray.results.store import Store, open_store

CONFIG = "config.yaml"
METRICS = "metrics.json"
"""What the job came to; there once it is done."""
TRACKING = "tracking"
"""What MLflow is told, before it is told (``seer_ray.tracking``)."""
MARKS = {"run.json": "run", "sweep.json": "sweep", "training.json": "job"}
"""File that says what a folder is -> what it is."""
RESTORE = "restore it from a copy"
UNSEALED = frozenset(
    {"version", "written_by", "created_at", "run_id", "config", "config_digest", "job", "sweep_id", "points"}
)
"""What a mark may have that was written before marks had a checksum."""

log = logging.getLogger(__name__)


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
    fixed: ClassVar[bool] = True
    """Whether the options that it was made with are those that it is resumed with."""

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
        return cls.at(open_store(uri))

    @classmethod
    def at(cls, store: Store) -> Self:
        """The same, of files that are open. Raises ConfigError."""
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
    def sealed(self) -> bool:
        """Whether all files here have checksums: it was not made before there were any."""
        return is_sealed(self.about)

    @property
    def config_text(self) -> str:
        """``config.yaml`` as it is, maybe changed by somebody; where it is gone, what the mark says.

        Raises:
            ConfigError: it is no text; or it is gone, from a folder of before marks had checksums.
        """
        try:
            return self.store.read(CONFIG).decode()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            if self.sealed and isinstance(error, FileNotFoundError):
                return yaml_of(self.config)
            where = self.store.locate(CONFIG)
            raise ConfigError(
                f"{where}: missing or torn; delete it and give the job's command again"
            ) from error

    @property
    def config_yaml(self) -> str:
        """The options as text. Raises ConfigError, as ``config_text``, and if it does not say what the mark
        says."""
        text = self.config_text
        if self.sealed and (changed := differences(text, self.config)):
            raise ConfigError(
                f"{self.store.locate(CONFIG)}: not what the job was begun with: {'; '.join(changed[:5])}; "
                "delete it to go on"
            )
        return text

    @property
    def unused(self) -> bool:
        """Whether nothing was made here yet: what it was to be made of may still change."""
        return self._unused(self.store)

    def metrics(self) -> dict[str, Any] | None:
        """What the job came to; None: it is not done."""
        return self.read_json(METRICS)

    def write_json(self, name: str, value: Any) -> None:
        """Create or replace a small file such as ``status.json``, atomically; a mapping gets a checksum and
        says which run it is of. Raises OSError."""
        if not re.fullmatch(r"[a-z_]+\.json", name) or name == self.mark:
            raise ValueError(f"{name}: not a name for a JSON file here")
        self._writing()
        value = redacted(value)
        whole = seal({**value, RUN_ID: self.run_id, FILE: name}) if isinstance(value, dict) else value
        self.store.write(name, json.dumps(whole, indent=1).encode())

    def read_json(self, name: str) -> Any:
        """What ``write_json`` was given; None if it is not there. Raises ConfigError if it is torn, changed
        or of another run."""
        remedy = f"{RESTORE}, or delete it"
        value = self.store.read_json(name, remedy)
        if not isinstance(value, dict) or not (self.sealed or value.keys() & {CHECKSUM, RUN_ID, FILE}):
            return value
        try:
            check_seal(value, self.run_id, name)
        except ForeignError as error:
            raise ConfigError(f"{self.store.locate(name)}: {error} than {self.mark}; {remedy}") from error
        except ValueError as error:
            raise ConfigError(f"{self.store.locate(name)}: {error}; {remedy}") from error
        return {key: item for key, item in value.items() if key not in (CHECKSUM, RUN_ID, FILE)}

    def failure(self, error: OSError) -> JobError:
        """What it means that something could not be written here."""
        with contextlib.suppress(OSError):
            if self.path is not None and not (self.path / self.mark).exists():
                return FolderGone(
                    f"{self.uri}: the folder is gone; if somebody has moved it, go on there with: seer-ray "
                    "resume FOLDER; if it was deleted, its rows are lost: give the job's command again"
                )
        return NotWritten(f"{self.uri}: cannot be written: {one_line(error)}")

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
        noted = about.get("config") if about is not None and cls.fixed else None
        theirs = Identity(noted, type(config)) if noted is not None else mine
        if about is None or (theirs.digest != mine.digest and cls._unused(store)):
            store.delete(f"{TRACKING}/{name}" for name in store.list(TRACKING))  # of a job that never was
            about = seal(
                {
                    "version": cls.version,
                    "written_by": f"seer-ray {version('seer-ray')}",
                    "created_at": time.time(),
                    **cls._about(mine),
                }
            )
            store.write(cls.mark, json.dumps(about, indent=1).encode())
        else:
            mine.refuse_differences(theirs, store.uri)
        cls._write_config(store, about.get("config") if is_sealed(about) else None, mine)
        return about

    @classmethod
    def _write_config(cls, store: Store, noted: dict[str, Any] | None, mine: Identity) -> None:
        """``config.yaml``, if it is not as it must be. Without options in the mark it is all there is."""
        text = yaml_of(noted or mine.config).encode()
        there = CONFIG in store.list()
        if there and (noted is None or store.read(CONFIG) == text):
            return
        if there:
            log.warning("%s: was not as the job was begun; written again", store.locate(CONFIG))
        store.write(CONFIG, text)

    @classmethod
    def _read_mark(cls, store: Store) -> dict[str, Any] | None:
        about = store.read_json(cls.mark, RESTORE)
        if about is None:
            return None
        where = store.locate(cls.mark)
        if not isinstance(about, dict) or not cls.keys <= about.keys():
            raise ConfigError(f"{where}: not written by seer-ray; give the {MARKS[cls.mark]} another name")
        if isinstance(about["version"], int) and about["version"] > cls.version:
            writer = about.get("written_by", "a newer seer-ray")
            raise ConfigError(f"{where}: made by {writer} (format {about['version']}); upgrade to use it")
        if is_sealed(about) or not about.keys() <= UNSEALED:
            try:
                check_seal(about)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}; {RESTORE}") from error
        return about
