"""A run or a sweep as a process of its own, to be killed: python faults_driver.py CONFIG JOURNAL PACE.

Its workers' engines are the real ones. They write into the journal what they are given and what they produce,
and rest PACE seconds after each step that made tokens, so that there is time to kill them.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from seer_ray.cluster.worker import build_engine
from seer_ray.config.compose import from_yaml
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.jobs import run as run_job
from seer_ray.jobs import sweep


class Journal:
    """Lines ``begin ID TOKENS`` (a request came with so many) and ``made ID TOKENS`` (so many more).

    Of a sweep, ID has the layer plan before it.
    """

    def __init__(self, engine: Any, path: str, pace: float, with_plan: bool) -> None:
        self._engine, self._pace, self._with_plan = engine, pace, with_plan
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _id(self, id: str) -> str:
        return f"{self._engine.plan_id}|{id}" if self._with_plan else id

    def submit(self, request: Any) -> None:
        os.write(self._file, f"begin {self._id(request.id)} {len(request.progress.tokens)}\n".encode())
        self._engine.submit(request)

    def step(self, tell: bool = True) -> Any:
        deltas = self._engine.step()
        made = [
            f"made {self._id(delta.request_id)} {len(delta.tokens)}\n" for delta in deltas if delta.tokens
        ]
        if made:
            os.write(self._file, "".join(made).encode())
            time.sleep(self._pace)
        return deltas


def grade(completion: str, answer: str | None) -> bool:
    """A grader under which about half of any texts are right, so that there is something to compare."""
    return bool(hashlib.sha256(completion.encode()).digest()[0] % 2)


def late(completion: str, answer: str | None) -> bool:
    """The same, once the file ``GRADES`` is there."""
    while not Path(os.environ["GRADES"]).exists():
        time.sleep(0.02)
    return grade(completion, answer)


class Reporter:
    """Prints notes, for whoever looks at a failed test."""

    def note(self, message: str) -> None:
        print(message, flush=True)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


if __name__ == "__main__":
    config_file, journal, pace = sys.argv[1], sys.argv[2], float(sys.argv[3])
    text = Path(config_file).read_text()
    is_sweep = "\nsweep:" in text

    def build(config: RunConfig) -> Any:
        return Journal(build_engine(config), journal, pace, is_sweep)

    reporter: Any = Reporter()
    if is_sweep:
        sweep.main(from_yaml(text, job=SweepConfig), reporter, build)
    else:
        run_job.main(from_yaml(text), reporter, build)
