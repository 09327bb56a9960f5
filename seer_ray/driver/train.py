"""What training jobs have in common: folder, Ray, tracking, and ending well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from seer_ray.cluster.connect import connected
from seer_ray.config.errors import Interrupted
from seer_ray.config.training import DistillConfig, PretrainConfig
from seer_ray.corpora.identity import training_contents
from seer_ray.driver import told
from seer_ray.driver.frame import Frame, framed
from seer_ray.driver.sources import look, note_sources, refuse_other_sources
from seer_ray.models.identity import Contents
from seer_ray.report.job import write_job_report
from seer_ray.results.base import CONFIG, METRICS
from seer_ray.results.history import FILE as HISTORY
from seer_ray.results.job import JobFolder
from seer_ray.results.store import join
from seer_ray.status.live import Reporter, TrainLive, TrainSummary
from seer_ray.tracking.mlflow_tracker import catch_up
from seer_ray.tracking.tracker import Dataset

TrainConfigs = PretrainConfig | DistillConfig


class Result(Protocol):
    """How a training loop ended."""

    finished: bool
    step: int
    metrics: dict[str, float]


Report = Callable[[int, dict[str, float]], bool]
"""Told (step, metrics); whether somebody wants to stop."""
Launch = Callable[[Any, Contents, str, Report], Result]
"""(options, content of what they name, folder, report) -> how it ended: the loop, on the connected Ray."""


def train(
    config: TrainConfigs,
    launch: Launch,
    product: str,
    reporter: Reporter[TrainLive, TrainSummary] | None = None,
    dataset: Dataset | None = None,
    next_commands: tuple[str, ...] = (),
) -> TrainSummary:
    """Runs a training job to its end; run again, it goes on where it stopped, or does nothing.

    Args:
        config: All options; gets a name if it has none.
        launch: The loop.
        product: The folder's name for what is made.
        reporter: Shows how it goes.
        dataset: What is learned, for the tracking.
        next_commands: Worth trying next; ``{product}`` stands for the product's folder.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        JobError: Training cannot go on. What is in the last checkpoint is kept.
        Interrupted: SIGINT, SIGTERM or SIGHUP. Everything is in a checkpoint.
    """
    with framed(config, JobFolder, reporter) as frame:
        if frame.folder.metrics() is None:
            frame.begin(dataset)
            with frame.working():
                _work(frame, launch, product)
        else:
            catch_up(frame.folder, to=config.tracking)
        metrics, made = frame.folder.metrics() or {}, join(frame.folder.uri, product)
        summary = TrainSummary(
            **frame.facts(),
            product=made,
            step=config.train.steps,
            tokens=metrics.get("train/tokens", 0.0),
            metrics=metrics,
            next_commands=[text.format(product=made) for text in next_commands],
        )
        frame.finish(summary)
        return summary


def _work(frame: Frame[Any, JobFolder], launch: Launch, product: str) -> None:
    config, folder, stop = frame.config, frame.folder, frame.stop
    live = TrainLive(config.train.steps, phase="starting workers")
    frame.status.say = lambda: {"step": live.step}

    def report(step: int, metrics: dict[str, float]) -> bool:
        watch.check()
        live.step, live.news, live.phase = step, metrics, "training"
        live.metrics |= metrics
        frame.reporter.update(live)
        frame.tracker.log(metrics, step=step)
        return stop.asked

    if isinstance(config, DistillConfig):
        config = replace(config, model=look(config.model, folder).model)
    contents = training_contents(config)
    refuse_other_sources(folder, contents)
    note_sources(folder, contents)
    place = str(folder.path) if folder.path is not None else join(config.results.folder, frame.name)
    frame.reporter.start(live)
    with connected(config.cluster, frame.reporter.note) as watch, stop.listening():
        stop.patient = True
        result = launch(config, contents, place, report)
        stop.patient = False
    if not result.finished:
        raise Interrupted(f"interrupted at step {result.step} of {config.train.steps}")
    folder.conclude(result.metrics)
    frame.tracker.tag({told.NOTE: told.note(config, told.figures(result.metrics))})
    pages = write_job_report(folder, frame.reporter.note) if config.results.report else []
    for name in (CONFIG, METRICS, HISTORY, f"{product}/README.md", *pages):
        frame.tracker.artifact(name)
