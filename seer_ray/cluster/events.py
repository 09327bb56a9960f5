"""What happens to workers, as their pool tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from seer_ray.cluster.engine_thread import Built, WorkReport


@dataclass
class Ready:
    """A worker has its model."""

    worker: str
    built: Built


@dataclass
class Reported:
    worker: str
    report: WorkReport


@dataclass
class Lost:
    """A worker is gone."""

    worker: str
    reason: str
    blameless: bool = False
    """No request can be to blame."""
    log: list[str] = field(default_factory=list)
    """The last lines of its log."""


@dataclass
class Failed:
    """A worker did not come up."""

    worker: str
    reason: str
    given_up: bool
    log: list[str] = field(default_factory=list)
    """The last lines of its log."""


@dataclass
class Homeless:
    """A worker has waited for a place in the cluster for long."""

    worker: str
    reason: str


Event = Ready | Reported | Lost | Failed | Homeless
