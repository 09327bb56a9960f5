"""Training on Ray Train: one worker a GPU, or workers on CPUs."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from seer_ray.cluster.placement import Placement, cluster_nodes, place_workers
from seer_ray.config.errors import ConfigError, JobError, first_line
from seer_ray.config.options import ClusterConfig
from seer_ray.corpora.identity import training_contents
from seer_ray.models.identity import Contents, verify
from seer_ray.training.loop import Objective, Report, TrainingError, TrainResult, fit

POLL = 0.2
"""Seconds between two looks at what the workers say."""
PATIENCE = timedelta(hours=6)
"""That workers wait for the first of them, which evaluates and saves alone."""

Build = Callable[[Any, str], Objective]
"""(options of the job, device) -> what is trained. Runs in every worker: importable there."""


@dataclass(frozen=True)
class Training:
    """What a worker needs to know."""

    build: Build
    config: Any
    """Options of the job, with ``train`` and ``cluster``."""
    folder: str
    """The run's, an address that every worker can write."""
    product: str
    home: str
    """Where relative paths of the options begin: the folder of the process that launches."""
    contents: Contents
    """What the options name, by option."""

    def built(self, device: str) -> Objective:
        """What is trained, of the same files on every node. Ray Train starts workers in folders of their own.

        Raises:
            ConfigError: names the node, and what is not there or differs.
        """
        with contextlib.chdir(self.home) if os.path.isdir(self.home) else contextlib.nullcontext():
            verify(self.config.command, lambda: training_contents(self.config), self.contents)
            return self.build(self.config, device)


@dataclass
class Mail:
    """What the first worker has said, and what it is to be told. Lives in an actor."""

    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    result: TrainResult | None = None
    refusal: tuple[str, str] | None = None
    """Kind and text of an error that is the user's or the data's."""
    stop: bool = False

    def put(self, step: int, metrics: dict[str, float]) -> bool:
        """A report. Whether to stop."""
        self.reports.append((step, metrics))
        return self.stop

    def take(self) -> list[tuple[int, dict[str, float]]]:
        """Reports since the last call."""
        taken, self.reports = self.reports, []
        return taken

    def ask_to_stop(self) -> None:
        self.stop = True

    def end(self, result: TrainResult | None, refusal: tuple[str, str] | None) -> None:
        """The first worker is done."""
        self.result, self.refusal = result, refusal

    def ended(self) -> tuple[TrainResult | None, tuple[str, str] | None]:
        return self.result, self.refusal


def launch(training: Training, report: Report) -> TrainResult:
    """Train on the connected Ray cluster, from the folder's newest checkpoint if there is one.

    A worker that dies takes the others along; all go on from the newest checkpoint.

    Args:
        report: told of the first worker's reports, and with no metrics in between; True: stop.

    Raises:
        ConfigError: the workers do not fit the cluster, or a worker refuses an option.
        JobError: training cannot go on.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    cluster: ClusterConfig = training.config.cluster
    placement = place_workers(cluster_nodes(), cluster, requests=cluster.workers or 2**20)
    mail = ray.remote(Mail).options(num_cpus=0).remote()
    with tempfile.TemporaryDirectory(prefix="seer-ray-") as scratch:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"training": training, "placement": placement, "mail": mail},
            scaling_config=ScalingConfig(
                num_workers=placement.workers,
                use_gpu=placement.num_gpus > 0,
                resources_per_worker=_resources(placement),
            ),
            torch_config=TorchConfig(
                backend="nccl" if placement.num_gpus else "gloo", timeout_s=int(PATIENCE.total_seconds())
            ),
            run_config=RunConfig(
                storage_path=scratch, failure_config=FailureConfig(max_failures=cluster.max_attempts - 1)
            ),
        )
        return _follow(trainer, mail, report)


def _resources(placement: Placement) -> dict[str, float]:
    found = {"CPU": placement.num_cpus}
    return found | {"GPU": placement.num_gpus} if placement.num_gpus else found


def _follow(trainer: Any, mail: Any, report: Report) -> TrainResult:
    """Pass on what the first worker says, until training ends."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # told below, in the thread that waits
            failure.append(error)

    # A daemon: somebody who interrupts twice does not wait for it.
    thread = threading.Thread(target=run, name="ray-train", daemon=True)
    thread.start()
    step, asked = 0, False
    while True:
        running = thread.is_alive()
        for number, metrics in _answer(mail.take.remote(), step, report):
            step = number
            asked = bool(report(step, metrics)) or asked
        asked = bool(report(step, {})) or asked
        if asked:
            mail.ask_to_stop.remote()
        if not running:
            break
        time.sleep(POLL)
    result, refusal = _answer(mail.ended.remote(), step, report)
    if refusal is not None:
        kind, text = refusal
        raise ConfigError(text) if kind == "config" else JobError(text)
    if failure:
        raise JobError(f"training failed: {_cause(failure[0])}") from failure[0]
    if result is None:
        raise JobError("training ended without a result")
    return result


def _answer(call: Any, step: int, report: Report) -> Any:
    """What an actor says, for as long as ``report`` does not raise."""
    import ray

    while not ray.wait([call], timeout=1.0)[0]:
        report(step, {})
    return ray.get(call)


def _cause(error: BaseException) -> str:
    """The line that says what happened in a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else first_line(error)


def _work(settings: dict[str, Any]) -> None:
    """In every worker."""
    import ray
    import ray.train
    import ray.train.torch
    import torch

    training: Training = settings["training"]
    placement: Placement = settings["placement"]
    mail = settings["mail"]
    torch.set_num_threads(max(1, math.floor(placement.num_cpus)))
    device = str(ray.train.torch.get_device()) if placement.num_gpus else "cpu"
    first = ray.train.get_context().get_world_rank() == 0

    def report(step: int, metrics: dict[str, float]) -> bool:
        return ray.get(mail.put.remote(step, metrics))

    result, refusal = None, None
    try:
        objective = training.built(device)
        result = fit(objective, training.config.train, training.folder, report, training.product)
    except ConfigError as error:
        refusal = ("config", str(error))
    except TrainingError as error:
        refusal = ("training", str(error))
    if first:
        ray.get(mail.end.remote(result, refusal))
