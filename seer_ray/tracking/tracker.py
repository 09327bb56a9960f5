"""What a job says about itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Dataset:
    """The problems of a run."""

    name: str
    digest: str
    """Of the content; at most 36 characters."""
    source: str
    """Path, hub id, or the generator's settings."""
    rows: int
    kind: str = "local"
    """What MLflow calls its source: ``local``, ``hugging_face``, ``code``, or the scheme of a URI."""
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name -> type, as a column of MLflow's schemas: ``{"type": "string", "required": True}``."""


class Tracker(Protocol):
    """None of this waits for anything but the local disk, and none of it raises: a job does not end for its
    tracking's sake."""

    @property
    def place(self) -> tuple[str, str] | tuple[None, None]:
        """Where the run can be seen, and its id there; None: nobody has been told of it."""

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        dataset: Dataset | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Begin the run, or go on with the one that the run folder belongs to.

        Args:
            params: by dotted option name. Logged once; what a resumed run does differently becomes a tag.
            tags: of the run, as it is begun.
        """

    def log(self, metrics: Mapping[str, float | None], step: int, timestamp: float | None = None) -> None:
        """Metrics at one moment. Those that are None are left out.

        Args:
            step: rows done.
            timestamp: seconds since the epoch; None: now.
        """

    def artifact(self, name: str) -> None:
        """A file of the run folder, by its name there, as it is when it is sent."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags, in place of those of the same names."""

    def completions(self, traced: Sequence[tuple[str, int]]) -> None:
        """The run folder's rows, as they are when it is sent: a table of them, and some as traces.

        Args:
            traced: (problem id, sample) of those.
        """

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run. Waits a few seconds for what is unsent; the rest is kept."""


class NullTracker:
    """Tracks nothing."""

    place = (None, None)

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        dataset: Dataset | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None: ...

    def log(self, metrics: Mapping[str, float | None], step: int, timestamp: float | None = None) -> None: ...

    def artifact(self, name: str) -> None: ...

    def tag(self, tags: Mapping[str, str]) -> None: ...

    def completions(self, traced: Sequence[tuple[str, int]]) -> None: ...

    def finish(self, status: Status = "FINISHED") -> None: ...
