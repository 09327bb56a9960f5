"""The Ray actor: one model replica that decodes whatever it is given."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from seer_ray.cluster.loop import Built, EngineLoop, Setting, Steppable, WorkReport
from seer_ray.config import RunConfig
from seer_ray.engine.request import Request

Builder = Callable[[RunConfig], Steppable]

GRACE = 5.0
"""Seconds that a worker whose engine failed has to say so."""


def build_engine(config: RunConfig) -> Steppable:
    """Loads the model and makes an engine of it."""
    from seer_ray.engine import Engine
    from seer_ray.models.load import load_model

    return Engine(load_model(config.model), config.engine, config.selector)


class Worker:
    """Plain class; ``fleet`` makes an actor of it.

    Args:
        config: The job's.
        cpus: Threads for torch.
        gpus: 0: the worker has none, even if the machine does.
        build: What makes the engine.
    """

    def __init__(self, config: RunConfig, cpus: float, gpus: float, build: Builder = build_engine) -> None:
        if gpus == 0 and config.model.device == "auto":
            config = replace(config, model=replace(config.model, device="cpu"))
        self._config = config
        self._threads = max(1, int(cpus))
        self._build = build
        self._loop: EngineLoop | None = None

    def start(self) -> Built:
        """Loads the model."""
        self._loop = EngineLoop(self._built, Setting(self._config.engine, self._config.selector))
        return self._loop.wait_until_built()

    def work(
        self, new: Sequence[Request], seconds: float, hungry: bool, setting: Setting | None = None
    ) -> WorkReport:
        """See ``EngineLoop.exchange``. If the engine fails, the process ends soon after this has raised:
        after a CUDA error it could hang for ever and keep its GPU.
        """
        assert self._loop is not None, "start() comes first"
        try:
            return self._loop.exchange(new, seconds, hungry, setting)
        except BaseException:
            timer = threading.Timer(GRACE, os._exit, (1,))
            timer.daemon = True
            timer.start()
            raise

    def _built(self) -> Steppable:
        import torch

        torch.set_num_threads(self._threads)
        return self._build(self._config)
