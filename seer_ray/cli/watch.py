"""Jobs of other processes, shown while they run."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from seer_ray.cli.terminal import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from seer_ray.results.folder import RunFolder
    from seer_ray.status.run import RunStatus
    from seer_ray.status.sweep import SweepStatus


WATCH_INTERVAL = 1.0
"""Seconds between two looks at a run folder."""


def show_sweep(uri: str, as_json: bool, watch: bool) -> None:
    """How a sweep stands."""
    from rich.console import Console

    from seer_ray.cli.display.sweep import print_sweep_status
    from seer_ray.status.sweep import read_sweep

    now = read_sweep(uri)
    if watch and now.state == "running":
        now = follow_sweep(uri, Console(stderr=True))
    if as_json:
        print_json({"state": now.state, "message": now.message, **dataclasses.asdict(now)})
    else:
        print_sweep_status(Console(), now)


def show_training(uri: str, as_json: bool, watch: bool) -> None:
    """How a training job stands."""
    from rich.console import Console

    from seer_ray.cli.display.training import ConsoleReporter, print_train_status
    from seer_ray.status.training import read_training

    now = read_training(uri)
    if watch and now.state == "running":
        reporter = ConsoleReporter(Console(stderr=True), None)
        reporter.start(now.name, now.steps or 0)
        try:
            while now.state == "running":
                reporter.update(now.step, now.metrics)
                time.sleep(WATCH_INTERVAL)
                now = read_training(uri)
        finally:
            reporter.close()
    if as_json:
        print_json({**dataclasses.asdict(now), "message": now.message})
    else:
        print_train_status(Console(), now)


def follow(uri: str, folder: RunFolder, console: Console) -> RunStatus:
    """Show a running job until it runs no more."""
    from seer_ray.cli.display.run import reporter_for
    from seer_ray.status.run import read_status

    now = read_status(uri, folder)
    reporter = reporter_for(console, None, now.name)
    reporter.start(now.live)
    try:
        while now.state == "running":
            reporter.update(now.live)
            time.sleep(WATCH_INTERVAL)
            now = read_status(uri, folder)
    finally:
        reporter.close()
    return now


def follow_sweep(uri: str, console: Console) -> SweepStatus:
    """Show a running sweep until it runs no more."""
    from seer_ray.cli.display.sweep import sweep_reporter_for
    from seer_ray.status.sweep import read_sweep

    now = read_sweep(uri)
    reporter = sweep_reporter_for(console, None, now.name)
    reporter.start(now.live)
    try:
        while now.state == "running":
            reporter.update(now.live)
            time.sleep(WATCH_INTERVAL)
            now = read_sweep(uri)
    finally:
        reporter.close()
    return now
