"""Small sweeps: ``from jobs.sweeps import run, rows, states``; their options are the fixture ``base``."""

from __future__ import annotations

import os
import signal
from typing import Any

import fake_engine

from seer_ray.config.options import SweepConfig
from seer_ray.jobs import sweep
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder
from seer_ray.status.live import NullReporter, SweepLive, SweepSummary
from seer_ray.sweeps.points import expand


class Recorder(NullReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


class Stopper(Recorder):
    """Presses Ctrl-C when so many rows of all points are done."""

    def __init__(self, done: int) -> None:
        super().__init__()
        self.done = done

    def update(self, live: SweepLive) -> None:
        if live.done >= self.done and live.phase == "decoding":
            self.done = 10**9
            os.kill(os.getpid(), signal.SIGINT)


def run(
    base: SweepConfig, *overrides: str, reporter: Recorder | None = None, build: Any = fake_engine.build_fake
) -> SweepSummary:
    return sweep.main(expand(overrides, base), reporter or Recorder(), build)


def folder(base: SweepConfig) -> SweepFolder:
    return SweepFolder.view(f"{base.results.folder}/{base.name}")


def rows(base: SweepConfig, slug: str) -> list[dict[str, Any]]:
    table = RunFolder.view(f"{base.results.folder}/{base.name}/points/{slug}").read()
    return sorted(table.to_pylist(), key=lambda row: (row["problem_id"], row["sample"]))


def states(base: SweepConfig) -> dict[str, str]:
    return {point["slug"]: point["state"] for point in folder(base).points}
