"""What jobs that measure a model have in common: a folder, tracking, and how they end."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from seer_ray.config.compose import run_name
from seer_ray.config.measuring import HeldOutConfig
from seer_ray.corpora.documents import Document, parse_sources
from seer_ray.driver import told
from seer_ray.driver.frame import Frame, framed
from seer_ray.report.content import FIGURES_FILE
from seer_ray.report.job import write_job_report
from seer_ray.results.base import CONFIG, METRICS
from seer_ray.results.job import JobFolder
from seer_ray.results.tables import write_table
from seer_ray.status.live import JobSummary, MeasureLive, Reporter
from seer_ray.tracking.tracker import Dataset

Measuring = Frame[HeldOutConfig, JobFolder]


@dataclass
class MeasureSummary(JobSummary):
    """What was measured on what."""

    model: str = ""
    block_size: int = 0
    documents: int = 0
    tokens: int = 0
    files: list[str] = field(default_factory=list)
    """Written into the folder."""


@dataclass(frozen=True)
class MeasurePlan:
    """What would be measured."""

    name: str
    compared: list[str]
    """Gates and selectors."""
    sources: list[str]
    documents: int
    """At most."""
    tokens: int
    """At most."""

    def lines(self) -> list[str]:
        """For a person."""
        return [
            f"{self.name}: {', '.join(self.compared)}",
            f"on {', '.join(self.sources)}: {self.documents} documents and {self.tokens:,} tokens at most",
        ]


def plan_of(config: HeldOutConfig, compared: Sequence[str]) -> MeasurePlan:
    """Of a job that measures gates or selectors on held-out documents."""
    sources = [source.path for source in parse_sources(config.data)]
    documents = config.documents * len(sources)
    return MeasurePlan(run_name(config), list(compared), sources, documents, documents * config.length)


@contextlib.contextmanager
def measuring(
    config: HeldOutConfig, reporter: Reporter[MeasureLive, Any] | None
) -> Iterator[tuple[Measuring, Callable[[int, int, str], None]]]:
    """The job's frame, at work, and what its passes are told to: (done, total, what is computed).

    The body measures anew each time: a folder of gates may hold others than before.

    Args:
        config: gets its name, if it has none.
        reporter: shows how it goes.

    Raises:
        ConfigError: an option is wrong.
        Interrupted: SIGINT, SIGTERM or SIGHUP, in the body.
    """
    live, began = MeasureLive(phase="reading model and data"), time.monotonic()

    def progress(done: int, total: int, phase: str) -> None:
        live.done, live.total, live.phase = done, total, phase
        live.eta_s = (time.monotonic() - began) / done * (total - done) if done else None
        frame.reporter.update(live)

    with framed(config, JobFolder, reporter) as frame:
        frame.folder.store.delete([METRICS])  # of the last time: what is measured now is not done
        frame.status.say = lambda: dataclasses.asdict(live)
        frame.reporter.start(live)
        with frame.working():
            yield frame, progress


class Measured(Protocol):
    """What was measured on what."""

    @property
    def block_size(self) -> int: ...

    @property
    def documents(self) -> Sequence[Document]: ...

    @property
    def tokens(self) -> int: ...


C = TypeVar("C", bound=HeldOutConfig)
F = TypeVar("F", bound=Measured)
S = TypeVar("S", bound=MeasureSummary)


def measured(
    config: C,
    reporter: Reporter[MeasureLive, S] | None,
    measure: Callable[[C, Callable[[int, int, str], None]], F],
    summarise: Callable[[Measuring, F, dict[str, Any]], tuple[S, dict[str, float]]],
) -> S:
    """A whole job that measures; anew each time, as ``measuring`` does.

    Args:
        config: its options.
        reporter: shows how it goes.
        measure: finds the figures; told the options, and what is to be told of each pass.
        summarise: writes them, by ``write_figures``; told the frame, the figures and the summary's common
            fields. Returns the summary and the metrics.

    Raises:
        ConfigError: an option, or what it names, is wrong.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    with measuring(config, reporter) as (frame, progress):
        found = measure(config, progress)
        summary, metrics = summarise(frame, found, begin(frame, found))
        conclude(frame, summary, metrics)
    frame.finish(summary)
    return summary


def begin(frame: Measuring, found: Measured) -> dict[str, Any]:
    """Says what was measured on what, to the tracker and, for a ``MeasureSummary``, to the caller."""
    documents = found.documents
    sources = ", ".join(dict.fromkeys(document.source for document in documents))
    content = hashlib.sha256(b"".join(document.tokens.numpy().tobytes() for document in documents))
    frame.begin(Dataset("documents", content.hexdigest()[:36], sources, len(documents)))
    return {
        **frame.facts(),
        "model": frame.config.model.name,
        "block_size": found.block_size,
        "documents": len(documents),
        "tokens": found.tokens,
    }


def write_figures(frame: Measuring, parts: Mapping[str, Sequence[Any]]) -> list[str]:
    """Parts of a measurement, one Parquet file each, if it has rows.

    Args:
        frame: of the job.
        parts: by name, dataclasses.

    Returns:
        The names of the files.
    """
    store = frame.folder.store
    return [
        file
        for name, rows in parts.items()
        for file in write_table(store, name, [dataclasses.asdict(row) for row in rows])
    ]


def conclude(frame: Measuring, summary: MeasureSummary, metrics: dict[str, float]) -> None:
    """Into the folder and the tracking: the summary, with its files, the main figures, and a page of them."""
    summary.files.append(FIGURES_FILE)
    frame.folder.store.write(FIGURES_FILE, json.dumps(dataclasses.asdict(summary), indent=1).encode())
    frame.folder.conclude(metrics)
    frame.tracker.tag({told.NOTE: told.note(frame.config, {"model": summary.model, **told.figures(metrics)})})
    if frame.config.results.report:
        summary.files += write_job_report(frame.folder, frame.reporter.note)
    for name in (CONFIG, *summary.files):
        frame.tracker.artifact(name)
