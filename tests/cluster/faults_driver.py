"""The main job as a process of its own, for tests that kill it: python faults_driver.py CONFIG JOURNAL PACE.

Its workers' engines are the real ones. They write into the journal what they are given and what they produce,
and rest PACE seconds after each step that made tokens, so that there is time to kill them.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from seer_ray.cluster import fleet
from seer_ray.cluster.worker import build_engine
from seer_ray.compose import from_yaml
from seer_ray.config import RunConfig
from seer_ray.jobs.reason import main


class Journal:
    """Lines ``begin ID TOKENS`` (a request came with so many) and ``made ID TOKENS`` (so many more)."""

    def __init__(self, engine: Any, path: str, pace: float) -> None:
        self._engine, self._pace = engine, pace
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request: Any) -> None:
        os.write(self._file, f"begin {request.id} {len(request.progress.tokens)}\n".encode())
        self._engine.submit(request)

    def step(self) -> Any:
        deltas = self._engine.step()
        made = [f"made {delta.request_id} {len(delta.tokens)}\n" for delta in deltas if delta.tokens]
        if made:
            os.write(self._file, "".join(made).encode())
            time.sleep(self._pace)
        return deltas


class Reporter:
    """Prints notes, for whoever looks at a failed test."""

    def note(self, message: str) -> None:
        print(message, flush=True)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


if __name__ == "__main__":
    config_file, journal, pace = sys.argv[1], sys.argv[2], float(sys.argv[3])

    def build(config: RunConfig) -> Any:
        return Journal(build_engine(config), journal, pace)

    fleet.MAX_FAILURES = 100  # it is not the workers' fault that they are killed while they start
    main(from_yaml(Path(config_file).read_text()), Reporter(), build)  # type: ignore[arg-type]
