"""What training jobs have in common: folder, Ray, tracking, and ending well."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from seer_ray.cluster.connect import connected
from seer_ray.config.checks import check
from seer_ray.config.compose import run_name
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import options
from seer_ray.driver.stopping import StopRequest
from seer_ray.results.job import METRICS, TrainFolder
from seer_ray.results.store import join
from seer_ray.status.live import SilentReporter, TrainReporter, TrainSummary
from seer_ray.status.pulse import Heartbeat, sign_of_life
from seer_ray.tracking.mlflow_tracker import catch_up, open_tracker
from seer_ray.tracking.tracker import Dataset, Tracker


def train(
    config: Any,
    job: str,
    build: Any,
    product: str,
    reporter: TrainReporter | None = None,
    dataset: Dataset | None = None,
    next_commands: tuple[str, ...] = (),
) -> TrainSummary:
    """Runs a training job to its end; run again, it goes on where it stopped, or does nothing.

    Args:
        config: All options, with ``name``, ``train``, ``cluster``, ``results`` and ``tracking``; gets a name
            if it has none.
        job: The command, such as ``pretrain``.
        build: See ``seer_ray.training.launch.Build``.
        product: The folder's name for what is made.
        dataset: What is learned, for the tracking.
        next_commands: Worth trying next; ``{product}`` stands for the product's folder.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        JobError: Training cannot go on. What is in the last checkpoint is kept.
        Interrupted: SIGINT or SIGTERM. Everything is in a checkpoint.
    """
    check(config)
    config.name = run_name(config)
    reporter, stop, began = reporter or SilentReporter(), StopRequest(), time.monotonic()
    uri = join(config.results.folder, config.name)
    with stop.listening(), TrainFolder.open(uri, config, job) as folder:
        tracker = open_tracker(folder, config.tracking)
        if folder.metrics() is None:
            tracker.start(config.name, {name: value for name, value, _ in options(config)}, dataset)
            _work(config, folder, build, product, reporter, tracker, stop)
        else:
            catch_up(folder)
        metrics = folder.metrics() or {}
        summary = TrainSummary(
            name=config.name,
            folder=folder.uri,
            product=join(folder.uri, product),
            step=config.train.steps,
            tokens=metrics.get("train/tokens", 0.0),
            metrics=metrics,
            elapsed_s=time.monotonic() - began,
            tracking_uri=getattr(tracker, "uri", None),
            tracking_run_id=getattr(tracker, "run_id", None),
            next_commands=[text.format(product=join(folder.uri, product)) for text in next_commands],
        )
        reporter.finish(summary)
        return summary


def _work(
    config: Any,
    folder: TrainFolder,
    build: Any,
    product: str,
    reporter: TrainReporter,
    tracker: Tracker,
    stop: StopRequest,
) -> None:
    # Brings torch along, which a job that is done does not need.
    from seer_ray.training.launch import Training, launch

    def report(step: int, metrics: dict[str, float]) -> bool:
        progress.step = step
        reporter.update(step, metrics)
        tracker.log(metrics, step=step)
        return stop.asked

    place = str(folder.path) if folder.path is not None else join(config.results.folder, config.name)
    reporter.start(config.name, config.train.steps)
    progress = _Progress(folder)
    heart = Heartbeat(progress.write)
    heart.start()
    try:
        with connected(config.cluster), stop.listening():
            stop.patient = True
            result = launch(Training(build, config, place, product), report)
            stop.patient = False
        if not result.finished:
            raise Interrupted(f"interrupted at step {result.step} of {config.train.steps}")
        folder.conclude(result.metrics)
        for name in ("config.yaml", METRICS, "metrics.jsonl", f"{product}/README.md"):
            tracker.artifact(name)
    except Interrupted:
        progress.end("interrupted")
        tracker.finish("KILLED")
        raise
    except BaseException as error:
        progress.end("failed", " ".join(str(error).split()) or type(error).__name__)
        tracker.finish("FAILED")
        raise
    finally:
        heart.stop()
    progress.end("done")
    tracker.finish()


class _Progress:
    """Who is at work, and how far: for other terminals."""

    def __init__(self, folder: TrainFolder) -> None:
        self.step = 0
        self._folder, self._mutex = folder, threading.Lock()
        self._state, self._error = "running", None  # type: str, str | None

    def write(self) -> None:
        """From any thread. Raises OSError."""
        with self._mutex:
            self._folder.tell({**sign_of_life(self._state, self._error), "step": self.step})

    def end(self, state: str, error: str | None = None) -> None:
        """The last word."""
        self._state, self._error = state, error
        with contextlib.suppress(OSError):
            self.write()
