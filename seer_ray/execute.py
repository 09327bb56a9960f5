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

from seer_ray.config import ConfigError, RunConfig, SweepConfig
from seer_ray.terminal import FAILED, INTERRUPTED, fail, kept_free, print_json, stop

if TYPE_CHECKING:
    from rich.console import Console

    from seer_ray.results.folder import RunFolder
    from seer_ray.status import RunStatus
    from seer_ray.sweep_status import SweepStatus

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


def load_sweep(file: str | None, overrides: list[str], points: list[str]) -> SweepConfig:
    """The options of a sweep, its points spelled out.

    Args:
        file: YAML with options; None: the usual ones
        overrides: on top of them, some with several values
        points: more points, each as overrides in one text
    """
    from seer_ray.overrides import Setting
    from seer_ray.points import expand

    base = load_config(file, [], SweepConfig) if file else None
    words: list[str | Setting] = [*overrides]
    if points:
        words.append(Setting("sweep.points", [*(base.sweep.points if base else []), *points]))
    return expand(words, base)


def load_job(file: str | None, words: list[str]) -> tuple[str, Any]:
    """A job that is named on the command line: its command, and its options with its name.

    Args:
        file: YAML with options; None: the usual ones
        words: the command, if it is not ``run``, and overrides
    """
    from seer_ray.compose import run_name
    from seer_ray.training.options import DistillConfig, PretrainConfig

    jobs = {"run": RunConfig, "sweep": SweepConfig, "pretrain": PretrainConfig, "distill": DistillConfig}
    command, rest = "run", words
    if words and "=" not in words[0]:
        command, *rest = words
    if command not in jobs:
        raise ConfigError(f"{command}: no such job; must be one of {', '.join(jobs)}")
    if command == "sweep":
        config: Any = load_sweep(file, rest, [])
    else:
        config = load_config(file, rest, jobs[command])
    config.name = run_name(config)
    return command, config


def resumed_run(uri: str, changes: list[str]) -> RunConfig:
    """The options of a run that is there, with changes that change no row."""
    from seer_ray.compose import compose, from_yaml
    from seer_ray.results import identity
    from seer_ray.results.folder import RunFolder
    from seer_ray.status import split

    folder = RunFolder.view(uri)
    before = from_yaml(folder.config_yaml, source=folder.store.locate("config.yaml"))
    before.results.folder, before.name = place, name = split(uri)
    after = compose(changes, base=before)
    if after.name != name:
        raise ConfigError(f"name={after.name}: {uri} is resumed under its own name; leave this out")
    after.results.folder = place
    identity.refuse_differences(dataclasses.asdict(after), folder.config, uri)
    return after


def resumed_sweep(uri: str, changes: list[str]) -> SweepConfig:
    """The options of a sweep that is there, with changes that change no row."""
    from seer_ray.compose import from_yaml
    from seer_ray.points import expand
    from seer_ray.results.sweep import SweepFolder
    from seer_ray.status import split

    folder = SweepFolder.view(uri)
    before = from_yaml(folder.config_yaml, folder.store.locate("config.yaml"), SweepConfig)
    before.results.folder, before.name = place, name = split(uri)
    after = expand(changes, before)
    if after.name != name:
        raise ConfigError(f"name={after.name}: {uri} is resumed under its own name; leave this out")
    after.results.folder = place
    return after


def show_sweep(uri: str, as_json: bool, watch: bool) -> None:
    """How a sweep stands."""
    from rich.console import Console

    from seer_ray.sweep_display import print_sweep_status
    from seer_ray.sweep_status import read_sweep

    now = read_sweep(uri)
    if watch and now.state == "running":
        now = follow_sweep(uri, Console(stderr=True))
    if as_json:
        print_json({"state": now.state, "message": now.message, **dataclasses.asdict(now)})
    else:
        print_sweep_status(Console(), now)


def execute_sweep(config: SweepConfig, as_json: bool) -> None:
    """Run a sweep, show it, and end with its exit code: 1 if a point failed."""
    from rich.console import Console

    from seer_ray.compose import run_name
    from seer_ray.sweep_display import sweep_reporter_for

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

    from seer_ray.sweep_display import print_estimate

    with kept_free(sys.stdout if as_json else None) as out:
        from seer_ray.jobs.estimate import estimate

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

    from seer_ray.compose import run_name
    from seer_ray.training.display import ConsoleReporter

    config.name = run_name(config)
    again = f"seer-ray resume {resume_argument(config)}"
    reporter = ConsoleReporter(Console(stderr=True), None if as_json else Console())
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(reporter.close, again):
            summary = importlib.import_module(f"seer_ray.jobs.{job}").main(config, reporter)
        if as_json:
            print_json(dataclasses.asdict(summary), out)


def show_training(uri: str, as_json: bool, watch: bool) -> None:
    """How a training job stands."""
    from rich.console import Console

    from seer_ray.training.display import ConsoleReporter, print_train_status
    from seer_ray.training_status import read_training

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


def follow_sweep(uri: str, console: Console) -> SweepStatus:
    """Show a running sweep until it runs no more."""
    from seer_ray.sweep_display import sweep_reporter_for
    from seer_ray.sweep_status import read_sweep

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


def resume_argument(config: Any) -> str:
    """What to give to ``seer-ray resume`` for this job."""
    from seer_ray.results.store import join

    return (
        str(config.name) if config.results.folder == "runs" else join(config.results.folder, str(config.name))
    )


def ray_logs() -> str:
    """Where Ray writes what the workers of the latest local cluster print."""
    return str(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "session_latest", "logs"))
