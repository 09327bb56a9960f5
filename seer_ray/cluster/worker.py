"""The Ray actor: one model replica, or one rank of it, that decodes whatever it is given."""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from seer_ray.cluster.engine_thread import Built, DecodeOptions, EngineLoop, Steppable, WorkReport
from seer_ray.cluster.priority import normal_priority
from seer_ray.config.options import RunConfig
from seer_ray.engine.request import Request
from seer_ray.models.identity import Contents, contents, verify

if TYPE_CHECKING:
    from seer_ray.engine.reading import CompletionReader
    from seer_ray.models.group import Group

Builder = Callable[..., Steppable]
"""(config of the job) -> engine; on several ranks (config, group)."""

GRACE = 5.0
"""Seconds that a worker whose engine failed has to say so."""


def build_engine(config: RunConfig, group: Group | None = None) -> Steppable:
    """Loads the model, or this rank's part of it, and makes an engine of it."""
    from seer_ray.engine import Engine
    from seer_ray.models.group import ALONE
    from seer_ray.models.load import load_model

    return Engine(load_model(config.model, group or ALONE), config.engine, config.selector, config.plan)


@dataclass(frozen=True)
class Checked:
    """A builder that first sees to it that this node has the files that the driver has.

    Raises:
        ConfigError: when called, if it has not.
    """

    build: Builder
    contents: Contents
    """By option; see ``models.identity``."""

    def __call__(self, config: RunConfig, *group: Group) -> Steppable:
        verify(f"model.name={config.model.name}", lambda: contents(config.model), self.contents)
        return self.build(config, *group)


class Worker:
    """Plain class; ``actors`` makes an actor of it.

    Of several ranks, number 0 is the worker as others see it. The others are told where it listens and then
    do what it does.

    Args:
        config: The job's.
        cpus: Threads for torch.
        gpus: 0: the worker has none, even if the machine does.
        build: What makes the engine.
        rank: Which of the worker's ranks this is.
    """

    def __init__(
        self, config: RunConfig, cpus: float, gpus: float, build: Builder = build_engine, rank: int = 0
    ) -> None:
        if gpus == 0 and config.model.device == "auto":
            config = replace(config, model=replace(config.model, device="cpu"))
        self._config = config
        self._threads = max(1, int(cpus))
        self._build = build
        self._rank = rank
        self._meeting: socket.socket | int | None = None
        self._loop: EngineLoop | None = None
        self._tokenizer: Any = None
        self._readers: dict[tuple[str, ...] | None, CompletionReader] = {}

    def listen(self) -> int:
        """Of rank 0, before it starts. The port where it waits for the other ranks."""
        from seer_ray.models.group import listen

        self._meeting = meeting = listen()
        port: int = meeting.getsockname()[1]
        return port

    def start(self) -> Built:
        """Loads the model."""
        niceness, config = normal_priority(), self._config
        built_with = DecodeOptions(config.engine, config.selector, config.plan)
        self._loop = EngineLoop(self._built, built_with)
        built = self._loop.wait_until_built()
        from seer_ray.kernels.compiled import fallback

        return replace(built, niceness=niceness, node=_node(), note=fallback() or built.note)

    def work(
        self,
        new: Sequence[Request],
        seconds: float,
        hungry: bool,
        options: DecodeOptions | None = None,
        back: Collection[str] = (),
    ) -> WorkReport:
        """See ``EngineLoop.exchange``. If the engine fails, the process ends soon after this has raised:
        after a CUDA error it could hang for ever and keep its GPU.
        """
        assert self._loop is not None, "start() comes first"
        try:
            report = self._loop.exchange(new, seconds, hungry, options, back)
        except BaseException:
            timer = threading.Timer(GRACE, os._exit, (1,))
            timer.daemon = True
            timer.start()
            raise
        if self._tokenizer is not None:
            self._read(report)
        return report

    def _read(self, report: WorkReport) -> None:
        """What is done is read here, beside the engine; what cannot be read, by the driver, who says why."""
        from seer_ray.engine.reading import CompletionReader

        marks = self._loop.marks if self._loop is not None else None
        if marks not in self._readers:
            self._readers[marks] = CompletionReader.of(self._tokenizer, marks)
        for delta in report.deltas:
            if (done := delta.completion) is not None and done.finish_reason != "abort":
                with contextlib.suppress(Exception):
                    done.reading = self._readers[marks].read(done, done.request)

    def follow(self, port: int) -> None:
        """Of the other ranks. Loads the model and does what rank 0 does; ends only by an error."""
        from seer_ray.engine.parallel import follow

        normal_priority()
        self._meeting = port
        engine: Any = self._built()
        follow(engine)

    def _built(self) -> Steppable:
        import torch

        torch.set_num_threads(self._threads)
        if self._meeting is None:
            return self._with_tokenizer(self._build(self._config))
        from seer_ray.engine.parallel import Leader
        from seer_ray.models.group import join
        from seer_ray.models.load import resolve_device

        device, ranks = resolve_device(self._config.model.device), self._config.engine.tensor_parallel
        engine: Any = self._build(self._config, join(self._rank, ranks, self._meeting, device))
        return Leader(self._with_tokenizer(engine)) if self._rank == 0 else engine

    def _with_tokenizer(self, engine: Any) -> Any:
        """The engine; of its tokenizer one of our own, as it is used in another thread."""
        # Where there is none, or it cannot be copied, the driver reads.
        with contextlib.suppress(Exception):
            self._tokenizer = copy.deepcopy(engine.tokenizer)
        return engine


def _node() -> str | None:
    """Where this process is, as Ray names it; None: it is none of Ray's."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
