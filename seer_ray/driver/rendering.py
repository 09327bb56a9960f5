"""Rendering beside the driver: processes that make the prompts which are near, so that its loop need not.

A prompt is the same whoever renders it: these have the same tokenizer, options and clock. So nothing rests on
them: what they have not begun when it is needed, and all that one held that died, is rendered by the driver.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from seer_ray.config.options import RunConfig
from seer_ray.tasks.grading import cores
from seer_ray.tasks.problem import Problem, Prompt

WORTH = 5.0
"""Seconds of rendering for each process: one takes some to start."""
MOST = 4
"""Processes."""
CHUNK = 16
"""Problems that a process gets at a time: what the driver may have to wait for."""

_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from seer_ray.driver.rendering import main; main(int(sys.argv[2]))"
)


def processes_for(seconds: float) -> int:
    """Processes for so much work."""
    return min(MOST, cores() - 1, int(seconds / WORTH))


class RenderPool:
    """Processes that render. They start when it is made, and end with ``close`` or when this process ends in
    any way. For one thread.

    Args:
        config, clock: As of ``Renderer``.
        processes: How many.
    """

    def __init__(self, config: RunConfig, clock: datetime | None, processes: int) -> None:
        self.waited = 0.0
        """Seconds that the driver waited for prompts."""
        self._waiting: deque[list[Problem]] = deque()
        self._asked: dict[str, _Process | None] = {}
        """By problem: the process that renders it; None: none has it yet."""
        self._processes = [_Process(config, clock) for _ in range(processes)]

    def expect(self, problems: Sequence[Problem]) -> None:
        """These are needed soon. Nothing, while no process is up."""
        if not any(process.ready for process in self._processes):
            return
        new = [problem for problem in problems if problem.id not in self._asked]
        self._asked.update(dict.fromkeys(problem.id for problem in new))
        self._waiting += [new[start : start + CHUNK] for start in range(0, len(new), CHUNK)]
        self._feed()

    def ready(self, needed: str) -> Iterator[Prompt]:
        """Prompts that are ready, and that of a problem, if a process has begun with it."""
        for process in self._processes:
            if process.busy and (process.done or self._asked.get(needed) is process):
                began = time.perf_counter()
                prompts = process.result()
                self.waited += time.perf_counter() - began
                for id in process.problems:
                    self._asked.pop(id, None)
                process.problems = []
                yield from prompts
        # Who asks renders it now.
        self._asked.pop(needed, None)
        self._feed()

    def close(self) -> None:
        """Ends the processes at once."""
        for process in self._processes:
            process.close()
        self._processes = []

    def _feed(self) -> None:
        for process in self._processes:
            while self._waiting and process.ready and not process.busy:
                wanted = [problem for problem in self._waiting.popleft() if problem.id in self._asked]
                if wanted and process.send(wanted):
                    self._asked.update(dict.fromkeys(process.problems, process))
                else:
                    for problem in wanted:
                        del self._asked[problem.id]


class _Process:
    """One of them: has one message on the way at most, so that neither side waits for the other to read."""

    def __init__(self, config: RunConfig, clock: datetime | None) -> None:
        self.problems: list[str] = []
        """Ids of those that it renders."""
        self._up = self._dead = False
        ours, theirs = Pipe()
        self._pipe: Connection[Any, Any] = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, json.dumps(sys.path), str(theirs.fileno())],
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"},
                stdin=subprocess.DEVNULL,
                # What a tokenizer prints must not come between the driver's output.
                stdout=2,
                pass_fds=[theirs.fileno()],
                # Not stopped by Ctrl-C: the driver may still need prompts.
                start_new_session=True,
            )
        self._try(lambda: ours.send((config, clock)))

    @property
    def ready(self) -> bool:
        """It has come up, and lives."""
        if not self._up and not self._dead and self._pipe.poll():
            self._up = self._try(self._pipe.recv) is not None
        return self._up and not self._dead

    @property
    def busy(self) -> bool:
        return bool(self.problems)

    @property
    def done(self) -> bool:
        return self._pipe.poll()

    def send(self, problems: Sequence[Problem]) -> bool:
        """Gives it something to render; whether it took it."""
        self._try(lambda: self._pipe.send(problems))
        self.problems = [] if self._dead else [problem.id for problem in problems]
        return not self._dead

    def result(self) -> list[Prompt]:
        """What it was given, rendered; waits for it. Nothing: it has died."""
        found: list[Prompt] | None = self._try(self._pipe.recv)
        return found or []

    def close(self) -> None:
        self._dead = True
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (EOFError, OSError):
            self._dead = True
        return None


def main(descriptor: int) -> None:
    """The inside of such a process; it ends with the pipe.

    Args:
        descriptor: The pipe's file descriptor.
    """
    from seer_ray.config.errors import ConfigError
    from seer_ray.driver.requests import Renderer

    os.set_inheritable(descriptor, False)
    pipe: Connection[Any, Any] = Connection(descriptor)
    # The driver says what is wrong with the model, if anything is.
    with contextlib.suppress(EOFError, OSError, ConfigError):
        renderer = Renderer(*pipe.recv())
        pipe.send(True)
        while True:
            prompts = [renderer.made(problem) for problem in pipe.recv()]
            for prompt in prompts:
                # Travels with it.
                prompt.digest  # noqa: B018
            pipe.send_bytes(pickle.dumps(prompts, 5))
