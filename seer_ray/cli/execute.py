"""A job in this process, from its options to its exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from seer_ray.cli.terminal import FAILED, INTERRUPTED, SENT_TO, console, fail, kept_free, print_json, stop
from seer_ray.cluster.connect import logs_folder
from seer_ray.config.errors import ConfigError, JobError
from seer_ray.config.options import JobConfig
from seer_ray.config.secrets import hidden
from seer_ray.jobs.kinds import kind_of


def begin(config: JobConfig, as_json: bool, dry_run: bool = False, print_config: bool = False) -> None:
    """Run a job, or only say what it would do, or what its options are."""
    if print_config:
        from seer_ray.config.compose import to_yaml

        print(to_yaml(config), end="")
    elif dry_run:
        _tell(config, as_json)
    else:
        execute(config, as_json)


def _tell(config: JobConfig, as_json: bool) -> None:
    from seer_ray.cli.display.views import view_of

    kind = kind_of(config)
    with kept_free(sys.stdout if as_json else None) as out:
        plan = kind.plan(config)
        if as_json:
            print_json(dataclasses.asdict(plan) | getattr(plan, "totals", {}), out)
            return
    view_of(kind.command).print_plan(console(), plan)


def execute(
    config: JobConfig,
    as_json: bool,
    main: Callable[[Any, Any], Any] | None = None,
    again: str | None = None,
) -> None:
    """Run a job, show it, and end with its exit code: 1 if a part of it failed.

    Args:
        config: all options.
        as_json: print what it came to as JSON.
        main: (config, reporter) -> ``JobSummary``, in place of the job of these options.
        again: the command that goes on with it; None: ``resume``, or the same.
    """
    from seer_ray.cli.display.views import view_of
    from seer_ray.config.compose import run_name
    from seer_ray.results.store import join

    kind, config.name = kind_of(config), run_name(config)
    folder = config.results.folder
    place = config.name if folder == "runs" else join(folder, config.name)
    again = again or (f"seer-ray resume {place}" if kind.resumable else "the same command")
    if os.environ.get(SENT_TO):
        again = "the same seer-ray submit"
    reporter = view_of(kind.command).follower(
        console(stderr=True), None if as_json else console(), config.name
    )
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(reporter.close, again):
            summary = (main or kind.main)(config, reporter)
        if as_json:
            print_json(dataclasses.asdict(summary), out)
    if summary.failed:
        names = ", ".join(summary.failed)
        fail(f"{names} failed; the other points are done, try again with: {again}", FAILED)
    if summary.failure:
        fail(summary.failure, FAILED)


@contextlib.contextmanager
def ending(close: Callable[[], None], again: str) -> Iterator[None]:
    """What ends a job is told in one line, with how to go on; the process exits with the code that says so.

    Args:
        close: gives the terminal back; called in any case.
        again: what goes on with the job.
    """
    try:
        yield
    except ConfigError:
        raise
    except KeyboardInterrupt:
        close()
        stop(f"interrupted; nothing is lost, go on with: {again}", INTERRUPTED)
    except JobError as error:
        close()
        fail(f"{error}; {error.kept}, go on with: {again}" if error.kept else str(error), FAILED)
    except Exception as error:
        close()
        print(hidden(traceback.format_exc()), end="", file=sys.stderr)
        fail(
            f"unexpected {type(error).__name__}, which is a bug: please report the lines above "
            f"(logs of the workers: {logs_folder()}); what was committed before is kept, go on with: {again}",
            FAILED,
        )
    finally:
        close()
