"""How a job stands, from its folder alone: while it runs, from another terminal, and after."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from seer_ray.analysis import errors, groups
from seer_ray.config.errors import ConfigError
from seer_ray.results.base import MARKS, Folder
from seer_ray.results.folder import RUN, RunFolder
from seer_ray.results.history import read_history
from seer_ray.results.job import ABOUT, CELLS, JobFolder
from seer_ray.results.speed import Speed
from seer_ray.results.store import join, open_store
from seer_ray.results.sweep import INDEX, SweepFolder, point_uri
from seer_ray.status.find import jobs_in, split
from seer_ray.status.live import LiveStats, MeasureLive, PointLive, SweepLive, TrainLive
from seer_ray.status.pulse import STATUS, JobStatus
from seer_ray.tracking.mlflow_tracker import unsent

FOLDERS: dict[str, type[Folder]] = {RUN: RunFolder, INDEX: SweepFolder, ABOUT: JobFolder}
"""By mark."""

L = TypeVar("L")


def view_folder(uri: str) -> Folder:
    """The folder of a job of any kind, to look at.

    Raises:
        ConfigError: none is there, or a torn one.
    """
    names = open_store(uri).list()
    for mark, folder in FOLDERS.items():
        if mark in names:
            return folder.view(uri)
    raise ConfigError(f"{uri}: no job here (none of {', '.join(MARKS)} in it)")


def read_status(uri: str, now: float | None = None, brief: bool = False) -> JobStatus:
    """How the job in a folder stands.

    Args:
        uri: as the user may write it.
        now: seconds since the epoch; None: the clock's.
        brief: no row is read, and MLflow's spool is not looked at.

    Raises:
        ConfigError: no job there, or a file in it is torn.
    """
    folder = view_folder(uri)
    status = JobStatus(name=split(uri)[1], folder=uri)
    said = folder.read_json(STATUS)
    status.hear(said, now)
    said = said if isinstance(said, dict) else {}
    if isinstance(folder, SweepFolder):
        _sweep(status, folder, said)
    elif isinstance(folder, JobFolder):
        _job(status, folder, said)
    else:
        status.command, status.live = "run", _live(LiveStats, said)
        if status.state == "new" and isinstance(folder, RunFolder) and (rows := folder.committed()):
            status.live.done = len(rows)  # its status.json is gone
            status.state = "stopped" if folder.metrics() is None else "done"
        if status.state == "done" and isinstance(folder, RunFolder):
            status.metrics = folder.metrics() or {}
            if not brief:
                kinds = errors.error_kinds(folder.stream(errors.COLUMNS))
                status.error_kinds = [dataclasses.asdict(kind) for kind in kinds]
                status.groups = groups.groups_of(folder.stream(groups.COLUMNS))
    if status.state != "running" and not brief:
        points = [point_uri(uri, entry["slug"]) for entry in status.index]
        runs = [RunFolder.view(place) for place in points if RUN in open_store(place).list()]
        status.unsent = unsent(folder, *runs)
    return status


def read_all(folder: str) -> list[JobStatus]:
    """How the jobs in a folder stand, in brief; the one heard of last comes last. Torn ones are left out."""
    found = []
    for name in jobs_in(folder):
        with contextlib.suppress(ConfigError):
            found.append(read_status(join(folder, name), brief=True))
    return sorted(found, key=lambda one: -(one.heartbeat_age_s or 0.0))


def _sweep(status: JobStatus, folder: SweepFolder, said: Mapping[str, Any]) -> None:
    status.command, status.index = "sweep", folder.points
    status.live = _live(SweepLive, {name: value for name, value in said.items() if name != "points"})
    status.live.points = [_point(status, entry) for entry in folder.points]
    failed = [point.name for point in status.live.points if point.state == "failed"]
    if status.state == "failed" and failed and not status.error:
        status.partly = failed


def _point(sweep: JobStatus, entry: Mapping[str, Any]) -> PointLive:
    live = LiveStats(total=entry.get("total", 0), done=entry.get("rows", 0))
    rate, state = None, entry["state"]
    place = point_uri(sweep.folder, entry["slug"])
    if RUN in open_store(place).list():
        said = RunFolder.view(place).read_json(STATUS)
        if isinstance(said, dict):
            live = _live(LiveStats, said)
            rate = speed.tokens_per_s if (speed := Speed.of(said)) else None
    if sweep.state == "stopped" and state in ("running", "waiting"):
        state = "stopped" if live.done else "waiting"
    return PointLive(entry["slug"], state, live, rate, entry.get("error"))


def _job(status: JobStatus, folder: JobFolder, said: Mapping[str, Any]) -> None:
    """Of a job that trains, or of a study or one that measures, which have no steps."""
    status.command, steps = folder.job, folder.config.get("train", {}).get("steps")
    status.resumable = steps is not None or bool(folder.store.list(CELLS))
    history = read_history(folder.store)
    for record in history:
        status.metrics |= {name: value for name, value in record.items() if name != "step"}
    step = max(int(said.get("step") or 0), int(history[-1]["step"]) if history else 0)
    status.live = TrainLive(steps, step, status.metrics) if steps is not None else _live(MeasureLive, said)
    final = folder.metrics()
    if final is not None:
        status.state, status.metrics = "done", final
    elif status.state == "new" and step:
        status.state = "stopped"


def _live(kind: type[L], said: Mapping[str, Any]) -> L:
    """What of a ``status.json`` this kind of job says."""
    known = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in said.items() if name in known})
