"""The folder of a training job: its settings, and what the loop and the tracking keep in it."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from typing import Any

from seer_ray.config import identity
from seer_ray.config.compose import to_yaml
from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results import lock
from seer_ray.results.base import HeldFolder
from seer_ray.results.folder import CONFIG, TRACKING
from seer_ray.results.store import Store, open_store

ABOUT = "training.json"
METRICS = "metrics.json"
"""The last of every metric; there once the job is done."""
STATUS = "status.json"
"""Who is at work, how far, and since when nothing was heard."""
CHECKPOINTS = "checkpoints"
VERSION = 1


class TrainFolder(HeldFolder):
    """``open`` to write (one process at a time), ``view`` to look. ``open_tracker`` takes either."""

    def __init__(self, store: Store, about: dict[str, Any], held: lock.Lock | None) -> None:
        """Use ``open`` or ``view``."""
        super().__init__(store, held)
        self.run_id: str = about["run_id"]
        self.config: dict[str, Any] = about["config"]
        self.job: str = about["job"]
        """The command that made it, such as ``pretrain``."""

    @classmethod
    def open(cls, uri: str, config: Any, job: str) -> TrainFolder:
        """Make the folder, or go on in it.

        Args:
            uri: of the job's own folder.
            config: all options, a dataclass.
            job: the command, such as ``pretrain``.

        Raises:
            ConfigError: cannot be written, in use, of something else, or made with other settings.
        """
        store = open_store(uri)
        try:
            if CONFIG in store.list() and ABOUT not in store.list():
                raise ConfigError(
                    f"{store.uri}: not a folder of training: it has {CONFIG} but no {ABOUT}; "
                    "give the run another name"
                )
            store.make_folder()
            held = lock.acquire(store)
            try:
                return cls(store, _begin(store, config, job), held)
            except BaseException:
                held.release()
                raise
        except OSError as error:
            raise ConfigError(
                f"results.folder: cannot write {store.uri} ({one_line(error)}); choose a writable folder"
            ) from error

    @classmethod
    def view(cls, uri: str) -> TrainFolder:
        """Look at a training job, finished or not.

        Raises:
            ConfigError: no such folder there, or a torn one.
        """
        store = open_store(uri)
        about = store.read_json(ABOUT, "restore it from a copy")
        if about is None:
            raise ConfigError(f"{store.uri}: no training here (no {ABOUT} in it)")
        return cls(store, about, None)

    @property
    def config_yaml(self) -> str:
        """All options of the command that began it. Raises ConfigError if they are gone."""
        try:
            return self.store.read(CONFIG).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            where = self.store.locate(CONFIG)
            raise ConfigError(
                f"{where}: missing or torn; give the command again: seer-ray {self.job}"
            ) from None

    def metrics(self) -> dict[str, float] | None:
        """The last of every metric; None: the job is not done."""
        return self.store.read_json(METRICS, "delete it, and give the command again")

    def tell(self, status: dict[str, Any]) -> None:
        """How it stands now, for other terminals. From any thread. Raises OSError."""
        self.store.write(STATUS, json.dumps(status, indent=1).encode())

    def conclude(self, metrics: dict[str, float]) -> None:
        """The job is done."""
        self.store.write(METRICS, json.dumps(metrics, indent=1).encode())


def _begin(store: Store, config: Any, job: str) -> dict[str, Any]:
    """What the folder is about: noted, or compared with what is noted there."""
    text = to_yaml(config)
    ours = identity.parse(text, CONFIG)
    about = store.read_json(ABOUT, "restore it from a copy")
    if about is not None and about["job"] != job:
        raise ConfigError(f"{store.uri}: made by seer-ray {about['job']}; give the run another name")
    same = about is not None and identity.digest(about["config"]) == identity.digest(ours)
    if about is None or (not same and not store.list(CHECKPOINTS)):
        # Without a checkpoint nothing is lost by beginning anew with corrected options.
        about = {
            "version": VERSION,
            "job": job,
            "run_id": uuid.uuid4().hex,
            "created_at": time.time(),
            "config": ours,
        }
        store.delete(f"{TRACKING}/{name}" for name in store.list(TRACKING))
        store.write(ABOUT, json.dumps(about, indent=1).encode())
        store.write(CONFIG, text.encode())
    identity.refuse_differences(ours, about["config"], store.uri, type(config))
    assert dataclasses.is_dataclass(config)
    return about
