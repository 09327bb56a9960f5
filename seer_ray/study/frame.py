"""The frame of a study: its cells done side by side by Ray workers, each committed once and whole.

Killed anywhere and run again, it asks for the same cells, reads those that are committed, does the others,
and comes to the same tables.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from seer_ray.cluster.connect import connected
from seer_ray.cluster.nodes import first_nodes
from seer_ray.cluster.placement import place_workers
from seer_ray.cluster.tasks import Do, TaskPool
from seer_ray.config.compose import run_name
from seer_ray.config.errors import ConfigError, Interrupted
from seer_ray.config.options import ClusterConfig
from seer_ray.config.paths import with_absolute_paths
from seer_ray.config.study import StudyConfig
from seer_ray.driver import told
from seer_ray.driver.frame import Frame, framed
from seer_ray.driver.sources import look, note_sources, refuse_other_sources
from seer_ray.models.identity import Contents, verify
from seer_ray.report.content import FIGURES_FILE
from seer_ray.report.job import write_job_report
from seer_ray.results.base import CONFIG, METRICS
from seer_ray.results.cells import Cells
from seer_ray.results.job import JobFolder
from seer_ray.results.store import join, open_store
from seer_ray.status.live import JobSummary, MeasureLive, Reporter
from seer_ray.study.cells import Cell, Row, Stages
from seer_ray.tracking.mlflow_tracker import catch_up
from seer_ray.tracking.tracker import Dataset

C = TypeVar("C", bound=StudyConfig)
T = TypeVar("T")
S = TypeVar("S", bound="StudySummary")


@dataclass
class StudySummary(JobSummary):
    """What a study came to."""

    cells: int = 0
    files: list[str] = field(default_factory=list)
    """Written into the folder, beside the cells."""


@dataclass(frozen=True)
class Kind(Generic[C, T, S]):
    """A kind of study."""

    summary: type[S]
    stages: Callable[[C], Stages[T]]
    """What is done, and what follows; see ``cells.Stages``. In the driver: reads no weights."""
    expected: Callable[[C], int]
    """Cells in all, about."""
    build: Callable[[C, str, str], Callable[[Cell], list[Row]]]
    """(options, the folder's address, device) -> what does a cell. Runs in every worker: importable there."""
    contents: Callable[[C], Contents]
    """What is behind the options; see ``models.identity``."""
    dataset: Callable[[C], Dataset]
    """What is read, for the tracking."""
    summarise: Callable[[Frame[C, JobFolder], T, dict[str, Any]], tuple[S, dict[str, float]]]
    """(frame, what follows, common fields of the summary) -> summary and metrics; writes files of its own."""


def studied(config: C, kind: Kind[C, T, S], reporter: Reporter[MeasureLive, S] | None = None) -> S:
    """A study from its folder to its end; run again, it goes on where it stopped, or does nothing.

    Args:
        config: all options; gets a name if it has none.
        kind: what is studied.
        reporter: shows how it goes.

    Raises:
        ConfigError: an option, or what it names, is wrong, or differs from the folder's.
        JobError: it cannot go on. Committed cells are kept.
        Interrupted: SIGINT, SIGTERM or SIGHUP. Likewise.
    """
    with framed(config, JobFolder, reporter) as frame:
        said = frame.folder.store.read_json(FIGURES_FILE, "delete it, and give the command again")
        if said is None or frame.folder.metrics() is None:
            with frame.working():
                summary = _Session(frame, kind).run()
        else:
            summary = kind.summary(**{**said, **frame.facts()})
            catch_up(frame.folder, to=config.tracking)
        frame.finish(summary)
        return summary


class _Session(Generic[C, T, S]):
    """One sitting."""

    def __init__(self, frame: Frame[C, JobFolder], kind: Kind[C, T, S]) -> None:
        self.frame, self.kind, self.cells = frame, kind, Cells(frame.folder)
        self.live = MeasureLive(phase="reading what is there", unit="cell")
        self.asked = self.done = self.made = 0
        self._began, self._expected = time.monotonic(), 0
        self._stack = contextlib.ExitStack()
        self._pool: TaskPool | None = None
        self._config, self._contents = frame.config, Contents()

    def run(self) -> S:
        frame, kind = self.frame, self.kind
        frame.status.say = lambda: dataclasses.asdict(self.live)
        frame.reporter.start(self.live)
        self._look()
        stages, sent = kind.stages(self._config), None
        self._expected = kind.expected(self._config)
        frame.begin(kind.dataset(self._config))
        with self._stack:
            while True:
                try:
                    asked = next(stages) if sent is None else stages.send(sent)
                except StopIteration as end:
                    found: T = end.value
                    break
                sent = self._stage(list(asked))
        self._show("summing up")
        summary, metrics = kind.summarise(frame, found, {**frame.facts(), "cells": self.done})
        self._conclude(summary, metrics)
        return summary

    def _look(self) -> None:
        """The files that the options name: the same as before."""
        config: Any = self._config
        if (model := getattr(config, "model", None)) is not None:
            config = replace(config, model=look(model, self.frame.folder, prefill=False).model)
        self._config, folder = config, self.frame.folder
        self._contents = self.kind.contents(self._config)
        refuse_other_sources(folder, self._contents)
        note_sources(folder, self._contents)

    def _stage(self, cells: list[Cell]) -> list[list[Row]]:
        """Rows of each, in order."""
        self.asked += len(cells)
        missing = list({cell.id: cell for cell in cells if cell.id not in self.cells}.values())
        self.done += len(cells) - len(missing)
        if missing:
            self._do(missing)
        return [self.cells.read(cell.id, cell.said) for cell in cells]

    def _do(self, cells: Sequence[Cell]) -> None:
        pool = self._pool or self._start(len(cells))

        def done(number: int, rows: list[Row], seconds: float) -> None:
            cell = cells[number]
            self.cells.commit(cell.id, cell.said, rows, seconds)
            self.done += 1
            self.made += 1
            self._show(cell.label)
            self.frame.tracker.log({"study/cells": float(self.done)}, step=self.done)

        self._show("starting workers" if not self.made else cells[0].label)
        stop = self.frame.stop
        with stop.listening():
            # Not in the middle of whatever is called then: libraries swallow exceptions.
            stop.patient = True
            pool.run(cells, [cell.label for cell in cells], done, self._tick)
            stop.patient = False

    def _start(self, most: int) -> TaskPool:
        cluster: ClusterConfig = self._config.cluster
        self._show("starting Ray")
        watch = self._stack.enter_context(connected(cluster, self.frame.reporter.note))
        nodes = first_nodes(watch, cluster, self._show)
        # Later stages may have more cells than the first.
        placement = place_workers(nodes, cluster, cluster.workers or most, grows=not watch.local)
        place = self.frame.folder.path or join(self._config.results.folder, self.frame.name)
        build = partial(_build, self.kind, with_absolute_paths(self._config), str(place), self._contents)
        self._pool = TaskPool(build, placement, cluster, watch, self.frame.reporter.note)
        self._stack.callback(self._pool.close)
        return self._pool

    def _tick(self) -> None:
        if self.frame.stop.asked:
            raise Interrupted(f"interrupted with {self.done} of {self.live.total} cells")
        self.frame.reporter.update(self.live)

    def _show(self, phase: str) -> None:
        live = self.live
        live.phase, live.done, live.total = phase, self.done, max(self._expected, self.asked)
        each = (time.monotonic() - self._began) / self.made if self.made else None
        live.eta_s = each * (live.total - live.done) if each is not None else None
        self.frame.reporter.update(live)

    def _conclude(self, summary: S, metrics: dict[str, float]) -> None:
        frame = self.frame
        summary.files.append(FIGURES_FILE)
        frame.folder.store.write(FIGURES_FILE, json.dumps(dataclasses.asdict(summary), indent=1).encode())
        frame.tracker.log(metrics, step=self.done)
        frame.tracker.tag({told.NOTE: told.note(frame.config, told.figures(metrics))})
        if frame.config.results.report:
            summary.files += write_job_report(frame.folder, frame.reporter.note)
        frame.folder.conclude(metrics)
        for name in (CONFIG, METRICS, *summary.files):
            frame.tracker.artifact(name)


def _build(kind: Kind[Any, Any, Any], config: Any, place: str, contents: Contents, device: str) -> Do:
    """In a worker: first sees to it that this node has the files that the driver has."""
    verify(config.command, lambda: kind.contents(config), contents)
    return kind.build(config, place, device)


@dataclass(frozen=True)
class StudyPlan:
    """What a study would do."""

    name: str
    cells: int
    """In all, about."""
    first: list[str]
    """Labels of those that are known before anything is measured."""
    done: int
    """That are there."""
    seconds: float | None
    """For those that are left, one after another, as those that are there took; None: none is."""
    about: list[str]

    def lines(self) -> list[str]:
        """For a person."""
        time_ = "not known before the first" if self.seconds is None else f"about {self.seconds / 60:.0f} min"
        known = ", ".join(self.first[:8]) + (
            f", and {len(self.first) - 8} more" if len(self.first) > 8 else ""
        )
        return [
            f"{self.name}: {self.cells} cells, of which {self.done} are there; one after another {time_}",
            f"first: {known}",
            *self.about,
        ]


def plan_study(config: C, kind: Kind[C, Any, Any], about: Sequence[str]) -> StudyPlan:
    """Its cells, and what they would take; makes no folder.

    Raises:
        ConfigError: an option, or what it names, is wrong.
    """
    name, cells = run_name(config), kind.expected(config)
    first = list(next(kind.stages(config)))
    place = join(config.results.folder, name)
    took: dict[str, float] = {}
    with contextlib.suppress(ConfigError):
        if open_store(place).list():
            took = Cells(JobFolder.view(place)).seconds()
    each = sum(took.values()) / len(took) if took else None
    left = max(0, cells - len(took))
    seconds = each * left if each is not None else None
    return StudyPlan(name, cells, [cell.label for cell in first], len(took), seconds, list(about))
