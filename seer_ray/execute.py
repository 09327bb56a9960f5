"""A job in this process, from its options to its exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar

from seer_ray.config import ConfigError, RunConfig
from seer_ray.terminal import FAILED, INTERRUPTED, fail, kept_free, print_json, stop

if TYPE_CHECKING:
    from rich.console import Console

    from seer_ray.results.folder import RunFolder
    from seer_ray.status import RunStatus

WATCH_INTERVAL = 1.0
"""Seconds between two looks at a run folder."""

C = TypeVar("C", default=RunConfig)


def load_config(
    file: str | None,
    overrides: list[str],
    job: type[C] = RunConfig,  # type: ignore[assignment]
) -> C:
    """The options of a job from a YAML file, if there is one, and overrides."""
    from seer_ray.compose import compose, from_yaml

    if file is None:
        return compose(overrides, job)
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--config {file}: cannot be read ({reason})") from None
    return compose(overrides, job, base=from_yaml(text, source=file, job=job, defaults=True))


def execute(config: RunConfig, as_json: bool) -> None:
    """Run the main job, show it, and end with its exit code."""
    from rich.console import Console

    from seer_ray.compose import run_name
    from seer_ray.display import reporter_for

    config.name = run_name(config)
    again = f"seer-ray resume {resume_argument(config)}"
    reporter = reporter_for(Console(stderr=True), None if as_json else Console(), config.name)
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(reporter.close, again):
            from seer_ray.jobs.reason import main as reason

            summary = reason(config, reporter)
        if as_json:
            print_json(dataclasses.asdict(summary), out)


def execute_training(config: Any, job: str, as_json: bool) -> None:
    """Run a training job, ``seer_ray.jobs.<job>``, show it, and end with its exit code."""
    import importlib

    from rich.console import Console

    from seer_ray.training.display import ConsoleReporter

    reporter = ConsoleReporter(Console(stderr=True), None if as_json else Console())
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(reporter.close, "the same command"):
            summary = importlib.import_module(f"seer_ray.jobs.{job}").main(config, reporter)
        if as_json:
            print_json(dataclasses.asdict(summary), out)


@contextlib.contextmanager
def ending(close: Callable[[], None], again: str) -> Iterator[None]:
    """What ends a job is told in one line, with how to go on; the process exits with the code that says so.

    Args:
        close: gives the terminal back; called in any case.
        again: what goes on with the job.
    """
    from seer_ray.cluster import Interrupted, JobError

    try:
        yield
    except ConfigError:
        raise
    except (KeyboardInterrupt, Interrupted):
        close()
        stop(f"interrupted; nothing is lost, go on with: {again}", INTERRUPTED)
    except JobError as error:
        close()
        fail(f"{error}; what is finished is kept, go on with: {again}", FAILED)
    except Exception as error:
        close()
        traceback.print_exc()
        fail(
            f"unexpected {type(error).__name__}, which is a bug: please report the lines above "
            f"(logs of the workers: {ray_logs()}); what is finished is kept, go on with: {again}",
            FAILED,
        )
    finally:
        close()


def follow(uri: str, folder: RunFolder, console: Console) -> RunStatus:
    """Show a running job until it runs no more."""
    from seer_ray.display import reporter_for
    from seer_ray.status import read_status

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


def resume_argument(config: RunConfig) -> str:
    """What to give to ``seer-ray resume`` for this run."""
    from seer_ray.results.store import join

    return (
        str(config.name) if config.results.folder == "runs" else join(config.results.folder, str(config.name))
    )


def ray_logs() -> str:
    """Where Ray writes what the workers of the latest local cluster print."""
    return str(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "session_latest", "logs"))
