"""The folder of a job that trains or measures: its settings, and what its loop keeps in it."""

from __future__ import annotations

from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity
from seer_ray.config.options import JobConfig
from seer_ray.results.base import METRICS, Folder
from seer_ray.results.store import Store, is_temporary

ABOUT = "training.json"
CHECKPOINTS = "checkpoints"
CELLS = "cells"
"""Of a study: see ``results.cells``."""


class JobFolder(Folder):
    """One that trains keeps checkpoints, a study its cells; one that measures has nothing to lose, and
    measures anew."""

    mark = ABOUT
    keys = frozenset({"version", "run_id", "config", "job"})

    @property
    def job(self) -> str:
        """The command that made it, such as ``pretrain``."""
        return str(self.about["job"])

    @classmethod
    def _about(cls, identity: Identity) -> dict[str, Any]:
        return super()._about(identity) | {"job": identity.job.command}

    @classmethod
    def _settle(cls, store: Store, config: JobConfig) -> dict[str, Any]:
        about = cls._read_mark(store)
        if about is not None and about["job"] != config.command:
            raise ConfigError(f"{store.uri}: made by seer-ray {about['job']}; give the job another name")
        return super()._settle(store, config)

    @classmethod
    def _unused(cls, store: Store) -> bool:
        return not store.list(CHECKPOINTS) and not store.list(CELLS)

    def _clean(self) -> None:
        self.store.delete(f"{CELLS}/{name}" for name in self.store.list(CELLS) if is_temporary(name))

    def conclude(self, metrics: dict[str, float]) -> None:
        """The job is done."""
        self.write_json(METRICS, metrics)
