"""How a sweep stands, from its folder alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from seer_ray.results.folder import RUN, RunFolder
from seer_ray.results.speed import Speed
from seer_ray.results.store import open_store
from seer_ray.results.sweep import SweepFolder, point_uri
from seer_ray.status.find import split
from seer_ray.status.live import LiveStats, PointLive, SweepLive
from seer_ray.status.pulse import Pulse, read_pulse
from seer_ray.status.run import read_status


@dataclass
class SweepStatus:
    """A sweep folder, read at one moment."""

    name: str
    folder: str
    pulse: Pulse
    live: SweepLive
    index: list[dict[str, Any]] = field(default_factory=list)
    """The points as ``sweep.json`` has them."""

    @property
    def state(self) -> str:
        return self.pulse.state

    @property
    def message(self) -> str:
        """The state in words, with what to do about it."""
        failed = [point.name for point in self.live.points if point.state == "failed"]
        if self.state == "failed" and not self.pulse.error:
            return f"done, but for {', '.join(failed)}; try again with: seer-ray resume {self.folder}"
        return self.pulse.describe(self.folder)


def read_sweep(uri: str) -> SweepStatus:
    """How the sweep in a folder stands.

    Args:
        uri: As the user may write it.

    Raises:
        ConfigError: No sweep there, or a file in it is torn.
    """
    from seer_ray.tracking import unsent

    folder = SweepFolder.view(uri)
    said = folder.read_json("status.json")
    pulse = read_pulse(said)
    live = SweepLive()
    if isinstance(said, dict):
        known = {item.name for item in dataclasses.fields(SweepLive)} - {"points"}
        live = SweepLive(**{name: value for name, value in said.items() if name in known})
    live.points = [_point(uri, entry, pulse.state) for entry in folder.points]
    if pulse.state != "running":
        places = [point_uri(uri, entry["slug"]) for entry in folder.points]
        runs = [RunFolder.view(place) for place in places if RUN in open_store(place).list()]
        pulse.unsent = unsent(folder, *runs)
    return SweepStatus(split(uri)[1], uri, pulse, live, folder.points)


def _point(uri: str, entry: dict[str, Any], sweep: str) -> PointLive:
    live = LiveStats(total=entry.get("total", 0), done=entry.get("rows", 0))
    rate, state = None, entry["state"]
    place = point_uri(uri, entry["slug"])
    if RUN in open_store(place).list():
        folder = RunFolder.view(place)
        status, said = read_status(place, folder), folder.read_json("status.json") or {}
        if status.state != "new":
            live = status.live
            rate = speed.tokens_per_s if (speed := Speed.of(said)) else None
    if sweep == "stopped" and state in ("running", "waiting"):
        state = "stopped" if live.done else "waiting"
    return PointLive(entry["slug"], state, live, rate, entry.get("error"))
