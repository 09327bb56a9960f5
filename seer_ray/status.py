"""How a run stands, from its folder alone: while it runs, from another terminal, and after."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seer_ray.config import ConfigError, did_you_mean
from seer_ray.jobs.live import LiveStats, Summary

if TYPE_CHECKING:
    from seer_ray.results.folder import RunFolder

STALE = 30.0
"""Seconds without a heartbeat after which a run that says it runs does not."""


@dataclass
class Pulse:
    """What a ``status.json`` says of who is at work."""

    state: str = "new"
    """``running``, ``done``, ``failed``, ``interrupted``, ``stopped early``, ``stopped`` (it says running,
    but nobody is there) or ``new`` (it has not come as far as to say anything)."""
    heartbeat_age_s: float | None = None
    host: str | None = None
    pid: int | None = None
    error: str | None = None
    unsent: int = 0
    """Updates that MLflow has not been told, of a job at which nobody is."""

    def behind(self, folder: str) -> str | None:
        """What MLflow lacks, and what to do about it."""
        if not self.unsent:
            return None
        what = "1 update is" if self.unsent == 1 else f"{self.unsent:,} updates are"
        return f"{what} not in MLflow yet; to send: seer-ray resume {folder}"

    def describe(self, folder: str) -> str:
        """The state in words, with what to do about it."""
        resume = f"continue with: seer-ray resume {folder}"
        age = f", last heard of {self.heartbeat_age_s:.0f} s ago" if self.heartbeat_age_s is not None else ""
        where = f" (process {self.pid} on {self.host})" if self.pid else ""
        reason = f": {self.error}" if self.error else ""
        return {
            "new": f"not begun yet; {resume}",
            "running": f"running{where}",
            "done": "done",
            "failed": f"failed{reason}; {resume}",
            "interrupted": f"interrupted; {resume}",
            "stopped early": f"stopped early{reason}",
            "stopped": f"stopped without finishing{age}; {resume}",
        }.get(self.state, self.state)


@dataclass
class RunStatus(Pulse):
    """A run folder, read at one moment."""

    name: str = ""
    folder: str = ""
    live: LiveStats = field(default_factory=LiveStats)
    metrics: dict[str, Any] = field(default_factory=dict)
    """Final metrics of a finished run."""

    @property
    def message(self) -> str:
        """The state in words, with what to do about it."""
        return self.describe(self.folder)

    def summary(self) -> Summary:
        """As the job itself would have told at its end."""
        return Summary(
            name=self.name,
            folder=self.folder,
            metrics=self.metrics,
            rows=self.live.done,
            errors=self.live.errors,
            elapsed_s=self.live.elapsed_s,
            resumed=self.live.resumed,
        )


def find_run(run: str, folder: str = "runs") -> str:
    """The folder of a run, a sweep or a training job that a path, or a name under ``folder``, means.

    Raises:
        ConfigError: there is none; names those there are.
    """
    from seer_ray.results.folder import RUN
    from seer_ray.results.store import join, open_store
    from seer_ray.results.sweep import INDEX
    from seer_ray.training.folder import ABOUT

    marks = (RUN, INDEX, ABOUT)
    places = [run.rstrip("/")] if run.strip("./") else []
    if not run.startswith(("/", ".")) and "://" not in run:
        places.insert(0 if "/" not in run else 1, join(folder, run.rstrip("/")))
    for place in places:
        if set(marks) & set(open_store(place).list()):
            return place
    root = open_store(folder).path
    known = sorted(path.parent.name for mark in marks for path in (root.glob(f"*/{mark}") if root else ()))
    there = f"; it has {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}" if known else ""
    raise ConfigError(f"{run}: no such run in {folder}{did_you_mean(run, known)}{there}")


def split(folder: str) -> tuple[str, str]:
    """A run folder as (where run folders are made, name); the options of a URI stay with the first."""
    base, mark, query = folder.partition("?") if "://" in folder else (folder, "", "")
    parent, slash, name = base.rstrip("/").rpartition("/")
    return (parent or slash or ".") + mark + query, name


def read_status(uri: str, folder: RunFolder, now: float | None = None) -> RunStatus:
    """How the run in a folder stands.

    Args:
        uri: of the run folder, as the user may write it
        folder: a view of it
        now: seconds since the epoch; None: the clock's

    Raises:
        ConfigError: a file in it is torn.
    """
    from seer_ray.tracking import unsent

    status = RunStatus(name=split(uri)[1], folder=uri)
    said = folder.read_json("status.json")
    if not isinstance(said, dict):
        return status
    known = {item.name for item in dataclasses.fields(LiveStats)}
    status.live = LiveStats(**{name: value for name, value in said.items() if name in known})
    vars(status).update(vars(read_pulse(said, now)))
    if status.state != "running":
        status.unsent = unsent(folder)
    if status.state == "done":
        status.metrics = folder.read_json("metrics.json") or {}
    return status


def read_pulse(said: Any, now: float | None = None) -> Pulse:
    """Of the content of a ``status.json``; anything but a mapping: nobody has said anything yet."""
    if not isinstance(said, dict):
        return Pulse()
    pulse = Pulse(str(said.get("state", "running")))
    pulse.host, pulse.pid, pulse.error = said.get("host"), said.get("pid"), said.get("error")
    if isinstance(beat := said.get("heartbeat"), (int, float)):
        pulse.heartbeat_age_s = max(0.0, (time.time() if now is None else now) - beat)
    if pulse.state == "running" and (_stale(pulse) or _dead(pulse)):
        pulse.state = "stopped"
    return pulse


def _stale(status: Pulse) -> bool:
    return status.heartbeat_age_s is None or status.heartbeat_age_s > STALE


def _dead(status: Pulse) -> bool:
    """Whether its process was on this machine and is gone."""
    if status.host != socket.gethostname() or not isinstance(status.pid, int):
        return False
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
