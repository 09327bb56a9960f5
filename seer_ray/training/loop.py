"""The training loop: one for gates and for whole models.

A step is a function of the settings, the seed and its number: an interrupted job, resumed, goes on with the
same numbers, on CPU to the last bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from seer_ray.config.training import TrainConfig
from seer_ray.results.history import History
from seer_ray.results.store import open_store
from seer_ray.training import checkpoint
from seer_ray.training import collectives as ranks
from seer_ray.training.checkpoint import State
from seer_ray.training.optim import Optimizer, lr_at
from seer_ray.training.product import write_product


class Objective(Protocol):
    """What is trained: data, loss and what is kept.

    A batch is a function of (settings, seed, step, rank, world) alone. Before each step torch's generator is
    seeded from (seed, step, rank), so that the loss may draw from it.
    """

    module: nn.Module
    """Its parameters with ``requires_grad`` are trained, nothing else is checkpointed. In fp32, on the device
    where it is to be trained."""

    def batch(self, step: int, rank: int, world: int) -> Any:
        """This rank's share of the data of a step, counted from 0."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """The mean over this rank's share, and values to log; runs under autocast if ``train.dtype`` says so.

        An objective that goes backward on its own, layer by layer or row by row, leaves gradients in
        ``.grad`` and returns a loss without a graph. The value ``tokens`` is what this rank's batch had: it
        is summed, the others are averaged, over ranks and steps. All ranks must give the same names.
        """

    def evaluate(self) -> dict[str, float]:
        """Held-out figures by name; at intervals and at the end, on rank 0, without gradients."""

    def save(self, folder: Path, report: dict[str, Any]) -> dict[str, float] | None:
        """Write the final product, with its card, to an empty local folder.

        Args:
            report: ``step, tokens, seconds, metrics`` (the last of every metric).

        Returns:
            Figures that only the finished product gives, if there are any.
        """


class TrainingError(RuntimeError):
    """Training cannot go on. The message is one line for a person."""


Report = Callable[[int, dict[str, float]], bool | None]
"""Told (steps done, metrics) after each step; most steps have no metrics, those that end a log interval and
evaluations do. True: stop after the next step."""


@dataclass
class TrainResult:
    """Where training ended."""

    step: int
    finished: bool
    """False: somebody asked to stop; the same call goes on."""
    tokens: float = 0.0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    """The last of every metric."""


def fit(
    objective: Objective,
    config: TrainConfig,
    folder: Path | str,
    report: Report | None = None,
    product: str = "model",
) -> TrainResult:
    """Train to the end, from the folder's newest checkpoint if there is one.

    In every process of a ``torch.distributed`` group, if there is a group; rank 0 writes and reports.

    Args:
        folder: the run's, a path or any pyarrow URI: gets ``checkpoints/``, ``metrics.jsonl``, the product.
        product: name of the folder for what ``Objective.save`` writes.

    Raises:
        TrainingError: the loss or the gradient is not a number; names the step.
        ConfigError: the checkpoint cannot be read, or is of another model.
    """
    return Trainer(objective, config, str(folder), report).run(product)


class Trainer:
    """One session of a training job."""

    def __init__(
        self, objective: Objective, config: TrainConfig, folder: str, report: Report | None = None
    ) -> None:
        self.objective, self.config, self.store = objective, config, open_store(folder)
        self.report = report or (lambda step, metrics: None)
        self.rank, self.world = ranks.place()
        self.optimizer = Optimizer(objective.module, config)
        self.device = next(p.device for p in objective.module.parameters() if p.requires_grad)
        self.history = History(self.store)
        self.state = self._begin()
        self.asked = False

    def _begin(self) -> State:
        found = ranks.from_first(checkpoint.read(self.store) if self.rank == 0 else None)
        if found is None:
            ranks.same_weights(self.objective.module)
            state = State()
        else:
            state = checkpoint.restore(found, self.objective.module, self.optimizer, self.store.uri)
        if self.rank == 0:
            self.store.make_folder()
            self.history.load(state.step)
        return state

    def run(self, product: str) -> TrainResult:
        config, state = self.config, self.state
        began, first, saved = time.monotonic(), state.step, state.step if state.step else -1
        before, stopped = state.seconds, False
        while state.step < config.steps and not stopped:
            stopped = self._step()
            self._tell({})
            state.seconds = before + time.monotonic() - began
            if state.step % config.log_every == 0 or state.step == config.steps:
                self._log((time.monotonic() - began) / (state.step - first))
            if state.step % config.eval_every == 0 and state.step < config.steps:
                self._evaluate()
            if state.step % config.checkpoint_every == 0 or state.step == config.steps or stopped:
                self._checkpoint()
                saved = state.step
        assert saved == state.step
        finished = state.step == config.steps
        result = TrainResult(state.step, finished, state.tokens, state.seconds)
        if finished and self.rank == 0:
            self._evaluate()
            summary = {
                "step": state.step,
                "tokens": state.tokens,
                "seconds": state.seconds,
                "metrics": self.history.last(),
            }
            final = write_product(self.store, product, lambda path: self.objective.save(path, summary))
            if final:
                self._tell(final)
        result.metrics = self.history.last()
        return result

    def _step(self) -> bool:
        """One update. True: somebody asked to stop."""
        config, state, module = self.config, self.state, self.objective.module
        torch.manual_seed(((config.seed * 1_000_003 + state.step) * 65_537 + self.rank) % 2**63)
        self.optimizer.zero_grad()
        batch = self.objective.batch(state.step, self.rank, self.world)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            loss, values = self.objective.loss(batch)
        if loss.requires_grad:
            loss.backward()
        names = sorted(values)
        numbers = [loss.item(), float(self.asked), *(values[name] for name in names)]
        mean, asked, *averages = ranks.average(module, numbers)
        limit = math.inf if config.clip is None else config.clip
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit).item()
        for name, value in (("loss", mean), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {state.step}: the {name} is {value}; lower train.lr, or set train.dtype=float32"
                )
        self.optimizer.step(lr_at(state.step, config))
        state.step += 1
        state.summed += 1
        metrics = {"loss": mean, "gradient_norm": norm, **dict(zip(names, averages, strict=True))}
        state.tokens += metrics.pop("tokens", 0.0) * self.world
        for name, value in metrics.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        return asked > 0

    def _log(self, seconds_per_step: float) -> None:
        state = self.state
        metrics = {f"train/{name}": value / state.summed for name, value in state.sums.items()}
        metrics["train/lr"] = lr_at(state.step - 1, self.config)
        metrics["train/tokens"] = state.tokens
        if state.seconds > 0:
            metrics["speed/tokens_per_s"] = state.tokens / state.seconds
        metrics["time/eta_s"] = seconds_per_step * (self.config.steps - state.step)
        state.sums, state.summed = {}, 0
        self._tell(metrics)

    def _evaluate(self) -> None:
        if self.rank != 0:
            return
        training = self.objective.module.training
        self.objective.module.eval()
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"),
        ):
            found = self.objective.evaluate()
        self.objective.module.train(training)
        self._tell({f"eval/{name}": value for name, value in found.items()})

    def _tell(self, metrics: dict[str, float]) -> None:
        if self.rank == 0:
            if metrics:
                self.history.add(self.state.step, metrics)
            self.asked = bool(self.report(self.state.step, metrics)) or self.asked

    def _checkpoint(self) -> None:
        if self.rank == 0:
            checkpoint.save(self.store, self.objective.module, self.optimizer, self.state)
