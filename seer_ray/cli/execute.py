"""A job in this process, from its options to its exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seer_ray.cli.resume import resume_argument
from seer_ray.cli.terminal import FAILED, INTERRUPTED, fail, kept_free, print_json, stop
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig

if TYPE_CHECKING:
    pass


def execute(config: RunConfig, as_json: bool) -> None:
    """Run the main job, show it, and end with its exit code."""
    from rich.console import Console

    from seer_ray.cli.display.run import reporter_for
    from seer_ray.config.compose import run_name

    config.name = run_name(config)
    again = f"seer-ray resume {resume_argument(config)}"
    reporter = reporter_for(Console(stderr=True), None if as_json else Console(), config.name)
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(reporter.close, again):
            from seer_ray.jobs.run import main as reason

            summary = reason(config, reporter)
        if as_json:
            print_json(dataclasses.asdict(summary), out)


def execute_sweep(config: SweepConfig, as_json: bool) -> None:
    """Run a sweep, show it, and end with its exit code: 1 if a point failed."""
    from rich.console import Console

    from seer_ray.cli.display.sweep import sweep_reporter_for
    from seer_ray.config.compose import run_name

    config.name = run_name(config)
    again = f"seer-ray resume {resume_argument(config)}"
    reporter = sweep_reporter_for(Console(stderr=True), None if as_json else Console(), config.name)
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(reporter.close, again):
            from seer_ray.jobs.sweep import main as sweep

            summary = sweep(config, reporter)
        if as_json:
            print_json({**dataclasses.asdict(summary), "failed": summary.failed}, out)
    if summary.failed:
        fail(
            f"{', '.join(summary.failed)} failed; the other points are done, try again with: {again}", FAILED
        )


def estimate_sweep(config: SweepConfig, as_json: bool) -> None:
    """Say what a sweep would do."""
    from rich.console import Console

    from seer_ray.cli.display.sweep import print_estimate

    with kept_free(sys.stdout if as_json else None) as out:
        from seer_ray.sweeps.estimate import estimate

        found = estimate(config)
        if as_json:
            totals = {name: getattr(found, name) for name in ("requests", "most", "tokens", "seconds")}
            print_json({**dataclasses.asdict(found), **totals}, out)
            return
    print_estimate(Console(), found)


def execute_training(config: Any, job: str, as_json: bool) -> None:
    """Run a training job, ``seer_ray.jobs.<job>``, show it, and end with its exit code."""
    import importlib

    from rich.console import Console

    from seer_ray.cli.display.training import ConsoleReporter
    from seer_ray.config.compose import run_name

    config.name = run_name(config)
    again = f"seer-ray resume {resume_argument(config)}"
    reporter = ConsoleReporter(Console(stderr=True), None if as_json else Console())
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(reporter.close, again):
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
    from seer_ray.config.errors import Interrupted, JobError

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


def ray_logs() -> str:
    """Where Ray writes what the workers of the latest local cluster print."""
    return str(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "session_latest", "logs"))
