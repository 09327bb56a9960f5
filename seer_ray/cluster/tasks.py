"""Tasks of a job spread over Ray actors, each of which has built once what it does them with."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seer_ray.cluster.placement import Placement
from seer_ray.cluster.priority import normal_priority
from seer_ray.cluster.watch import ClusterWatch
from seer_ray.config.errors import ConfigError, JobError, first_line
from seer_ray.config.options import ClusterConfig

POLL = 0.2
"""Seconds between two looks at whether the job goes on."""

Do = Callable[[Any], Any]
"""(task) -> what comes of it."""
Build = Callable[[str], Do]
"""(device, ``cpu`` or ``auto``) -> what does tasks. Runs in every worker: importable there."""


@dataclass(frozen=True)
class Answer:
    """What a worker says to a task."""

    result: Any = None
    seconds: float = 0.0
    refusal: tuple[bool, str] | None = None
    """An error that is the user's (or the job's), in its own line."""


class TaskWorker:
    """Plain class; ``TaskPool`` makes actors of it."""

    def __init__(self, build: Build, cpus: float, gpus: float) -> None:
        self._build, self._threads, self._device = build, max(1, int(cpus)), "auto" if gpus else "cpu"
        self._do: Do | None = None

    def work(self, task: Any) -> Answer:
        """Does a task; before its first, builds what it does it with."""
        try:
            if self._do is None:
                normal_priority()
                import torch

                torch.set_num_threads(self._threads)
                self._do = self._build(self._device)
            began = time.monotonic()
            result = self._do(task)
            return Answer(result, time.monotonic() - began)
        except (ConfigError, JobError) as error:
            return Answer(refusal=(isinstance(error, ConfigError), str(error)))


@dataclass
class _Slot:
    """A worker's place."""

    actor: Any = None
    task: int | None = None
    """Number of what it does now."""


@dataclass
class TaskPool:
    """Workers, and the tasks that died with them. Needs a process that is connected to Ray.

    Attributes:
        build: see ``Build``.
        placement: how many workers, and what each takes.
        config: how often a task may be tried.
        watch: whether the cluster is still there.
        note: told, in a line each, what a person should know.
    """

    build: Build
    placement: Placement
    config: ClusterConfig
    watch: ClusterWatch
    note: Callable[[str], None] = lambda message: None
    _slots: list[_Slot] = field(default_factory=list, init=False)

    def run(
        self,
        tasks: Sequence[Any],
        labels: Sequence[str],
        done: Callable[[int, Any, float], None],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """All tasks, side by side. One whose worker dies is given to another.

        Args:
            tasks: to be sent to workers.
            labels: of each, for messages.
            done: told number, result and seconds of each as it is done, in this thread.
            tick: called a few times a second; what it raises ends the pool's work.

        Raises:
            ConfigError, JobError: a task was refused; or its workers died ``cluster.max_attempts`` times.
        """
        import ray

        waiting, deaths = deque(range(len(tasks))), dict.fromkeys(range(len(tasks)), 0)
        calls: dict[Any, _Slot] = {}
        while waiting or calls:
            self.watch.check()
            tick()
            while waiting and (slot := self._free()) is not None:
                slot.task = waiting.popleft()
                calls[slot.actor.work.remote(tasks[slot.task])] = slot
            ended, _ = ray.wait(list(calls), timeout=POLL)
            for call in ended:
                slot = calls.pop(call)
                number, slot.task = slot.task, None
                assert number is not None
                try:
                    answer: Answer = ray.get(call)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError as error:
                    slot.actor = None
                    deaths[number] += 1
                    reason = f"{labels[number]}: its worker died ({first_line(error)})"
                    if deaths[number] >= self.config.max_attempts:
                        raise JobError(f"{reason}, {deaths[number]} times") from error
                    self.note(f"{reason}; it is given to another")
                    waiting.appendleft(number)
                    continue
                if answer.refusal is not None:
                    mine, text = answer.refusal
                    raise ConfigError(text) if mine else JobError(text)
                done(number, answer.result, answer.seconds)

    def close(self) -> None:
        """Ends all workers."""
        import ray

        for slot in self._slots:
            if slot.actor is not None:
                with contextlib.suppress(Exception):  # of a cluster that is gone: so is it
                    ray.kill(slot.actor, no_restart=True)
        self._slots = []

    def _free(self) -> _Slot | None:
        """A worker without a task, made if there is room; None: all have one."""
        import ray

        for slot in self._slots:
            if slot.task is None:
                break
        else:
            if len(self._slots) >= self.placement.workers:
                return None
            slot = _Slot()
            self._slots.append(slot)
        if slot.actor is None:
            place = self.placement
            options = {"num_cpus": place.num_cpus, "num_gpus": place.num_gpus, "max_restarts": 0}
            made: Any = ray.remote(TaskWorker).options(**options)
            slot.actor = made.remote(self.build, place.num_cpus, place.num_gpus)
        return slot
