"""MLflow behind a spool: a server that is down, slow or read-only slows nothing and loses nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seer_ray.config import ConfigError, TrackingConfig
from seer_ray.results.folder import TRACKING, RunFolder
from seer_ray.results.store import one_line, shown
from seer_ray.tracking import address
from seer_ray.tracking.pump import Pump
from seer_ray.tracking.sender import RUN_TAG, VALUE_LENGTH, Sender, fingerprint, reason
from seer_ray.tracking.spool import Event, Spool
from seer_ray.tracking.tracker import Dataset, NullTracker, Status, Tracker

log = logging.getLogger(__name__)

GRACE, SHORT_GRACE = 15.0, 1.0
"""Seconds that a finished job waits for MLflow, and for one that has been out of reach."""


def open_tracker(folder: RunFolder, config: TrackingConfig) -> Tracker:
    """The tracker of a run that this process writes.

    Raises:
        ConfigError: ``tracking.uri`` is no address. One that does not answer is no error.
    """
    if not config.enabled:
        return NullTracker()
    return MLflowTracker(folder, config.experiment, address.resolve(config.uri))


def catch_up(folder: RunFolder, timeout: float = 5.0) -> int:
    """Send what an earlier command could not, unless the run is going on and does so itself.

    Args:
        timeout: longest wait, in seconds.

    Returns:
        How many updates are still unsent.
    """
    spool = Spool(_spool_folder(folder))
    if not (unsent := spool.unsent()):
        return 0
    sent = spool.sent()
    try:
        uri = sent.uri or address.resolve(folder.config.get("tracking", {}).get("uri"))
    except ConfigError:
        return unsent
    if fingerprint(uri) != sent.target:
        return unsent
    pump = Pump(Sender(spool, folder.store, uri))
    pump.start()
    pump.close(timeout)
    return spool.unsent()


def _spool_folder(folder: RunFolder) -> Path:
    """In the run folder, or, where that is not on a disk, with this user's state."""
    if folder.path is not None:
        return folder.path / TRACKING
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "seer-ray" / folder.run_id


class MLflowTracker:
    """See ``Tracker``. Every call of MLflow happens on a thread of its own."""

    def __init__(self, folder: RunFolder, experiment: str, uri: str) -> None:
        """Args: uri: as ``address.resolve`` gives it."""
        self.folder, self.experiment, self.uri = folder, experiment, uri
        self.spool = Spool(_spool_folder(folder))
        self._pump: Pump | None = None
        self._warned = self._finished = False

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once it is known."""
        return self.spool.sent().run_id

    def start(self, name: str, params: Mapping[str, Any], dataset: Dataset | None = None) -> None:
        pump = Pump(Sender(self.spool, self.folder.store, self.uri), self._report)
        try:
            self.spool.open_to_append()
            pump.begin()
        except OSError as error:
            self._cannot_write(error)
            return
        self._pump = pump
        self._append(
            "start",
            name=name,
            experiment=self.experiment,
            params={option: str(value)[:VALUE_LENGTH] for option, value in params.items()},
            dataset=asdict(dataset) if dataset else None,
            tags={RUN_TAG: self.folder.run_id, "seer_ray.run": str(self.folder.path or self.folder.uri)},
        )
        pump.start()

    def log(self, metrics: Mapping[str, float | None], step: int, timestamp: float | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if value is not None}
        if values:
            self._append("metrics", timestamp, step=step, values=values)

    def artifact(self, name: str) -> None:
        self._append("artifact", name=name)

    def finish(self, status: Status = "FINISHED") -> None:
        self._append("finish", status=status)
        if self._pump is None:
            return
        self._pump.close(SHORT_GRACE if self._pump.failing else GRACE)
        self._finished = True
        if unsent := self.spool.unsent():
            log.warning(
                "%d updates are not in MLflow at %s yet; they are kept in %s, and sent by the next seer-ray "
                "command on this run",
                unsent,
                shown(self.uri),
                self.spool.folder,
            )
        self.spool.close()

    def _append(self, kind: str, timestamp: float | None = None, **content: Any) -> None:
        if self._pump is None:
            return
        now = time.time() if timestamp is None else timestamp
        event: Event = {"kind": kind, "time": round(1000 * now), **content}
        try:
            self.spool.append(event)
        except OSError as error:
            self._cannot_write(error)
        self._pump.wake()

    def _report(self, error: Exception) -> None:
        if not self._finished:
            log.warning(
                "MLflow at %s does not answer (%s); the job goes on, and updates are kept until it does",
                shown(self.uri),
                reason(error, self.uri),
            )

    def _cannot_write(self, error: OSError) -> None:
        if not self._warned:
            log.warning("MLflow misses updates: cannot write %s (%s)", self.spool.folder, one_line(error))
        self._warned = True
