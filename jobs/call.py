"""Whole jobs from Python: ``seer_ray.run(...)`` and ``seer_ray.sweep(...)``, as the command line has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seer_ray.config.command import typed
from seer_ray.config.errors import JobError
from seer_ray.config.options import JobConfig, RunConfig, SweepConfig
from seer_ray.jobs.kinds import kind_of
from seer_ray.jobs.load import load_config
from seer_ray.status.live import Reporter, Summary, SweepSummary

Setting = str | Mapping[str, Any]


def run(
    *settings: Setting,
    config: str | Path | None = None,
    reporter: Reporter[Any, Any] | None = None,
) -> Summary:
    """A dataset through a model, to its end; called again with the same settings, it goes on or does nothing.

    Args:
        settings: overrides as the command line has them (``"selector=quest"``), and mappings of options
            (``{"selector.budget": 512}``); the last wins
        config: YAML file with options, below them
        reporter: shows how it goes; None: nobody looks

    Returns:
        What it came to; the rows are in ``summary.folder``.

    Raises:
        ConfigError: an option, or what it names, is wrong.
        JobError: it cannot go on, or more of its rows are errors than ``results.max_error_rate`` allows.
        Interrupted: a signal to stop; what is finished is committed.
    """
    made = load_config(_file(config), list(_words(settings, several=False)), RunConfig)
    summary: Summary = _main(made, reporter)
    if summary.failure:
        raise JobError(summary.failure)
    return summary


def sweep(
    *settings: Setting,
    points: Sequence[str] = (),
    config: str | Path | None = None,
    reporter: Reporter[Any, Any] | None = None,
) -> SweepSummary:
    """Many settings over the same problems, in turns.

    Args:
        settings: as of ``run``; options and groups may have several values: ``"selector=quest,window"``,
            ``{"selector.budget": [256, 512]}``
        points: more of them, each as overrides in one text
        config, reporter: as of ``run``

    Returns:
        What it came to; points that failed are among ``failed``.

    Raises:
        ConfigError: what is wrong for all points.
        Interrupted: a signal to stop; what is finished is committed.
    """
    words = list(_words(settings, several=True))
    summary: SweepSummary = _main(load_config(_file(config), words, SweepConfig, points), reporter)
    return summary


def _main(config: JobConfig, reporter: Reporter[Any, Any] | None) -> Any:
    return kind_of(config).main(config, reporter)


def _file(config: str | Path | None) -> str | None:
    return None if config is None else str(config)


def _words(settings: Sequence[Setting], several: bool) -> Iterator[str]:
    """Settings as overrides; a list stands for several values, or for the value of an option that is one."""
    for setting in settings:
        if isinstance(setting, str):
            yield setting
            continue
        for name, value in setting.items():
            swept = several and isinstance(value, (list, tuple))
            yield f"{name}={','.join(map(typed, value)) if swept else typed(value)}"
