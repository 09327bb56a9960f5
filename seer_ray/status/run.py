"""How a run stands, from its folder alone: while it runs, from another terminal, and after."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seer_ray.status.find import split
from seer_ray.status.live import LiveStats, Summary
from seer_ray.status.pulse import Pulse, read_pulse

if TYPE_CHECKING:
    from seer_ray.results.folder import RunFolder


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
