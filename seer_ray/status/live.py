"""What a running job says about itself, and to whom: the vocabulary between a job and what shows it.

A job's driver fills a ``LiveStats`` about twice a second, gives it to a ``Reporter`` and writes it, with
process and heartbeat, to ``status.json`` in the run folder. At the end it gives a ``Summary``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar


@dataclass
class LiveStats:
    """A job at one moment. Rows are (problem, sample) pairs."""

    total: int = 0
    """Rows that the finished run will have."""
    done: int = 0
    """Rows committed or ready to be, errors included, also those of earlier sessions."""
    errors: int = 0
    """Rows that are errors, among ``done``."""
    running: int = 0
    """Chains in the workers."""
    queued: int = 0
    """Chains that wait for a worker."""
    to_grade: int = 0
    """Rows that are finished and wait for their grades; not among ``done``."""
    saved: int = 0
    """Samples that are not taken, as their problem is decided (``sequential``); not in ``total``."""
    new_tokens: int = 0
    """Tokens generated in this session."""
    tokens_per_s: float = 0.0
    """Over the last while, all workers together."""
    accuracy: float | None = None
    """Share of graded rows that are right, so far, 0 to 1."""
    accuracy_se: float | None = None
    """Standard error of ``accuracy``."""
    accuracy_low: float | None = None
    """Of its 95 % interval."""
    accuracy_high: float | None = None
    mean_attended: float | None = None
    """KV tokens read per layer, KV head and generated token."""
    sparsity: float | None = None
    """1 - attended / available, 1 at most; below 0: drafts had more read than dense attention reads."""
    acceptance: float | None = None
    """Share of draft tokens that became tokens; None: nothing was drafted."""
    captured_share: float | None = None
    """Of the engines' decode steps, those that ran captured and not operation by operation."""
    workers_ready: int = 0
    workers_starting: int = 0
    workers_wanted: int = 0
    elapsed_s: float = 0.0
    """Since this session began."""
    eta_s: float | None = None
    resumed: int = 0
    """Rows that were there when this session began."""
    phase: str = ""
    """What goes on, in two or three words: ``loading data``, ``starting workers``, ``decoding``."""


@dataclass
class JobSummary:
    """What a job came to."""

    name: str
    folder: str
    """The job's folder, a path or URI."""
    elapsed_s: float = 0.0
    tracking_uri: str | None = None
    tracking_run_id: str | None = None
    next_commands: list[str] = field(default_factory=list)
    """Command lines worth trying next."""
    failed: list[str] = field(default_factory=list)
    """Names of what failed, in a job that goes on without them."""
    failure: str | None = None
    """Why the job has failed, though it came to its end."""


@dataclass
class Summary(JobSummary):
    """What a run came to."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Final metrics by name, as in ``metrics.json``."""
    rows: int = 0
    """Rows of the finished dataset, errors included."""
    errors: int = 0
    error_kinds: list[dict[str, Any]] = field(default_factory=list)
    """What ``errors`` are, the most frequent first: see ``analysis.errors``."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    """Accuracy by the columns of the dataset that are kept: see ``analysis.groups``."""
    resumed: int = 0
    report: str | None = None
    """Where it is; None: there is none."""


@dataclass
class PointLive:
    """A point of a sweep at one moment."""

    name: str
    state: str
    """``waiting``, ``running``, ``done``, ``stopped early``, ``failed`` or ``interrupted``."""
    live: LiveStats
    tokens_per_s: float | None = None
    """Over all that was decoded for it, in the time that the workers had for it."""
    error: str | None = None
    """Why it failed, or was stopped early."""


@dataclass
class SweepLive:
    """A sweep at one moment."""

    points: list[PointLive] = field(default_factory=list)
    phase: str = ""
    elapsed_s: float = 0.0
    eta_s: float | None = None
    workers_ready: int = 0
    workers_wanted: int = 0

    @property
    def done(self) -> int:
        return sum(point.live.done for point in self.points)

    @property
    def total(self) -> int:
        return sum(point.live.total for point in self.points)


@dataclass
class SweepSummary(JobSummary):
    """What a sweep came to; ``failed`` are points."""

    points: list[dict[str, Any]] = field(default_factory=list)
    """As in the index of the sweep folder, each with its ``metrics``."""
    saved: str | None = None
    """What racing saved, in a sentence."""
    recommendation: str | None = None
    report: str | None = None


@dataclass
class TrainLive:
    """A training job at one moment."""

    steps: int = 0
    """Of the whole job."""
    step: int = 0
    """That was reported last."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The last of every metric."""
    news: dict[str, float] = field(default_factory=dict)
    """Those that this update brings."""
    phase: str = ""


@dataclass
class TrainSummary(JobSummary):
    """What a training job came to."""

    product: str = ""
    """Folder of what was made."""
    step: int = 0
    tokens: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    """The last of every metric."""


@dataclass
class MeasureLive:
    """A job that measures a model, at one moment."""

    done: int = 0
    total: int = 0
    """Of ``unit``."""
    eta_s: float | None = None
    phase: str = ""
    """What is computed."""
    unit: str = "pass"
    """What is counted: a pass of the model, a cell of a study."""


L = TypeVar("L", contravariant=True)
S = TypeVar("S", contravariant=True)


class Reporter(Protocol[L, S]):
    """Shows a job to somebody. Calls come from the driver's thread, ``start`` first (again, when more is
    known) and ``finish`` last.

    An interrupted or failed job gets no ``finish``; ``close`` comes always and may come twice.
    """

    def start(self, live: L) -> None: ...

    def update(self, live: L) -> None:
        """Called about twice a second."""

    def note(self, message: str) -> None:
        """A one-line event."""

    def finish(self, summary: S) -> None: ...

    def close(self) -> None:
        """Gives the terminal back."""


class NullReporter:
    """Shows nothing, of any job."""

    def start(self, live: Any) -> None: ...

    def update(self, live: Any) -> None: ...

    def note(self, message: str) -> None: ...

    def finish(self, summary: Any) -> None: ...

    def close(self) -> None: ...
