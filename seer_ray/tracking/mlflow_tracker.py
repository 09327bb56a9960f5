"""MLflow behind a spool: a server that is down, slow or read-only slows nothing and loses nothing."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.config.options import TrackingConfig
from seer_ray.config.secrets import redacted, revealed
from seer_ray.results.base import TRACKING, Folder
from seer_ray.results.provenance import versions
from seer_ray.results.store import shown
from seer_ray.tracking import address
from seer_ray.tracking.connect import fingerprint, reason
from seer_ray.tracking.pump import Pump
from seer_ray.tracking.sender import PARENT_TAG, RUN_TAG, VALUE_LENGTH, Sender
from seer_ray.tracking.spool import Event, Spool
from seer_ray.tracking.system import SystemMetrics
from seer_ray.tracking.tracker import Dataset, NullTracker, Status, Tracker

log = logging.getLogger(__name__)

GRACE, SHORT_GRACE = 15.0, 1.0
"""Seconds that a finished job waits for MLflow, and for one that has been out of reach."""
PATIENCE = 60.0
"""Seconds that a command which only sends what is left waits for MLflow to take a single update."""


def open_tracker(folder: Folder, config: TrackingConfig, parent: Tracker | None = None) -> Tracker:
    """The tracker of a run that this process writes.

    Args:
        folder: Of the run.
        config: Where to and how often.
        parent: Of the run around it, if it is nested: started before and finished after it.

    Raises:
        ConfigError: ``tracking.uri`` is no address. One that does not answer is no error.
    """
    if not config.enabled:
        return NullTracker()
    around = parent if isinstance(parent, MLflowTracker) else None
    return MLflowTracker(folder, config.experiment, address.resolve(config.uri), around)


def catch_up(*folders: Folder, to: TrackingConfig | None = None, patience: float = PATIENCE) -> int:
    """Send what earlier commands could not, for as long as MLflow takes it; all there is, if it is another
    MLflow than theirs.

    Runs that are going on send it themselves.

    Args:
        folders: Of runs; one that others are nested in comes before them.
        to: Where to. None, or the default store: where it was sent before, if that is known.
        patience: Longest wait for MLflow to take an update, in seconds.

    Returns:
        How many updates are still unsent.
    """
    senders: dict[str, list[Sender]] = {}
    for folder in folders:
        spool = Spool(_spool_folder(folder), folder.run_id)
        uri = _address(folder, spool, to)
        if uri and (spool.unsent() or (fingerprint(uri) != spool.sent().target and spool.read(0, 1))):
            senders.setdefault(uri, []).append(Sender(spool, folder, uri))
    for uri, those in senders.items():
        pump = Pump(those, partial(_warn, uri, "updates of before are kept until it does"))
        pump.start()
        pump.drain(patience)
    return unsent(*folders)


def unsent(*folders: Folder) -> int:
    """Updates of runs that MLflow has not been told."""
    return sum(Spool(_spool_folder(folder), folder.run_id).unsent() for folder in folders)


def _address(folder: Folder, spool: Spool, to: TrackingConfig | None) -> str | None:
    """Where a spool is to be sent; None: nowhere, or that is not known any more."""
    if to is not None and not to.enabled:
        return None
    if to is not None and (to.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        return address.resolve(to.uri)
    sent = spool.sent()
    try:
        noted = folder.config.get("tracking", {}).get("uri")
        uri = sent.uri or address.resolve(revealed(noted) if noted else None)
    except ConfigError:
        return None
    return uri if fingerprint(uri) == sent.target else None


def _warn(uri: str, then: str, error: Exception) -> None:
    log.warning("MLflow at %s does not answer (%s); %s", shown(uri), reason(error, uri), then)


def _spool_folder(folder: Folder) -> Path:
    """In the run folder, or, where that is not on a disk, with this user's state."""
    if folder.path is not None:
        return folder.path / TRACKING
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "seer-ray" / folder.run_id


class MLflowTracker:
    """See ``Tracker``. Every call of MLflow happens on a thread of its own."""

    def __init__(
        self, folder: Folder, experiment: str, uri: str, parent: MLflowTracker | None = None
    ) -> None:
        """
        Args:
            folder: Of the run.
            experiment: Where it is shown.
            uri: As ``address.resolve`` gives it.
            parent: Of the run around it, whose thread sends for both.
        """
        self.folder, self.experiment, self.uri, self.parent = folder, experiment, uri, parent
        self.spool = Spool(_spool_folder(folder), folder.run_id)
        self._pump: Pump | None = None
        self._system = SystemMetrics(self.log, float(folder.about.get("created_at", 0.0)))
        self._warned = self._finished = False

    @property
    def place(self) -> tuple[str, str] | tuple[None, None]:
        sent = self.spool.sent()
        uri = self.uri if sent.target == fingerprint(self.uri) else sent.uri
        return (uri, sent.run_id) if uri and sent.run_id else (None, None)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once it is known."""
        return self.spool.sent().run_id

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        dataset: Dataset | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        pump = self.parent._pump if self.parent else Pump([], self._report)
        if pump is None:
            return
        try:
            self.spool.open_to_append()
            pump.add(Sender(self.spool, self.folder, self.uri))
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
            tags=self._own_tags() | dict(tags or {}),
        )
        if self.parent is None:
            pump.start()
            self._system.start()

    def _own_tags(self) -> dict[str, str]:
        """By which the run is found again, and what MLflow's page shows of every run."""
        tags = {
            RUN_TAG: self.folder.run_id,
            "seer_ray.run": str(self.folder.path or self.folder.uri),
            "mlflow.source.name": "seer-ray",
            "mlflow.source.type": "JOB",
            **{f"version.{package}": said for package, said in versions().items()},
        }
        if self.parent is not None:
            tags[PARENT_TAG] = self.parent.folder.run_id
        with contextlib.suppress(OSError, KeyError):
            tags["mlflow.user"] = getpass.getuser()
        return tags

    def log(self, metrics: Mapping[str, float | None], step: int, timestamp: float | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if value is not None}
        if values:
            self._append("metrics", timestamp, step=step, values=values)

    def artifact(self, name: str) -> None:
        self._append("artifact", name=name)

    def tag(self, tags: Mapping[str, str]) -> None:
        if tags:
            self._append("tags", tags=dict(tags))

    def completions(self, traced: Sequence[tuple[str, int]]) -> None:
        self._append("completions", traced=[list(key) for key in traced])

    def finish(self, status: Status = "FINISHED") -> None:
        self._system.stop()
        self._append("finish", status=status)
        if self._pump is None:
            return
        if self.parent is not None:
            # The parent waits for both, and tells of what is unsent.
            self.spool.close()
            return
        self._pump.close(SHORT_GRACE if self._pump.failing else GRACE)
        self._finished = True
        if left := self._pump.unsent:
            log.warning(
                "%d updates are not in MLflow at %s yet; they are kept in %s, and sent by: "
                "seer-ray resume %s",
                left,
                shown(self.uri),
                self.spool.folder,
                self.folder.uri,
            )
        self.spool.close()

    def _append(self, kind: str, timestamp: float | None = None, **content: Any) -> None:
        if self._pump is None:
            return
        now = time.time() if timestamp is None else timestamp
        event: Event = redacted({"kind": kind, "time": round(1000 * now), **content})
        try:
            self.spool.append(event)
        except OSError as error:
            self._cannot_write(error)
        self._pump.wake()

    def _report(self, error: Exception) -> None:
        if isinstance(error, OSError) and str(error.filename or "").startswith(str(self.spool.folder)):
            self._cannot_write(error)
        elif not self._finished:
            _warn(self.uri, "the job goes on, and updates are kept until it does", error)

    def _cannot_write(self, error: OSError) -> None:
        if not self._warned:
            log.warning("MLflow misses updates: cannot write %s (%s)", self.spool.folder, one_line(error))
        self._warned = True
