"""What jobs that measure a model have in common: a folder, tracking, and how they end."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from seer_ray.config.training import HeldOutConfig
from seer_ray.corpora.documents import Document
from seer_ray.driver import told
from seer_ray.driver.frame import Frame, framed
from seer_ray.report.job import FIGURES_FILE, write_job_report
from seer_ray.results.base import CONFIG, METRICS
from seer_ray.results.job import JobFolder
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
    live, began = MeasureLive(), time.monotonic()

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
