"""Options of a job from its command line, or from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer
from typing_extensions import TypeVar

from seer_ray.config.errors import ConfigError
from seer_ray.config.escapes import typed_escapes
from seer_ray.config.options import JobConfig, RunConfig, SweepConfig
from seer_ray.jobs.kinds import kind_named

C = TypeVar("C", bound=JobConfig, default=RunConfig)

OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDE", help="group=choice or option=value; all of them: seer-ray options"),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="a job's folder, or its name under runs/")]
ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="YAML file with options; overrides go on top")
]


def load_config(
    file: str | None,
    overrides: list[str],
    job: type[C] = RunConfig,  # type: ignore[assignment]
    points: Sequence[str] = (),
) -> C:
    """The options of a job, with its name; a sweep's points are spelled out.

    Args:
        file: YAML with options; None: the usual ones
        overrides: on top of them; those of a sweep may have several values
        job: its options
        points: more points of a sweep, each as overrides in one text
    """
    from seer_ray.config.compose import compose, from_yaml, run_name

    base = None
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"--config {file}: cannot be read ({reason})") from None
        base = from_yaml(text, source=file, job=job, defaults=True)
    if job is SweepConfig:
        from seer_ray.sweeps.points import expand

        config: JobConfig = expand(overrides, cast("SweepConfig | None", base), points)
    else:
        config = compose(overrides, job, base)
    config.name = run_name(config)
    for line in typed_escapes(config):
        typer.echo(f"note: {line}", err=True)
    return cast(C, config)


def load_job(file: str | None, words: list[str]) -> JobConfig:
    """The options of a job that can be sent away, named on the command line.

    Args:
        file: YAML with options; None: the usual ones
        words: the command, if it is not ``run``, and overrides
    """
    named = bool(words) and "=" not in words[0]
    kind = kind_named(words[0] if named else RunConfig.command)
    return load_config(file, words[named:], kind.config)


def resumed(uri: str, changes: list[str]) -> JobConfig:
    """The options of a job that is there, with changes that change no result.

    Raises:
        ConfigError: its folder is torn, or it cannot be resumed so.
    """
    from seer_ray.config.compose import compose, from_yaml
    from seer_ray.config.identity import Identity
    from seer_ray.results.base import CONFIG
    from seer_ray.results.job import JobFolder
    from seer_ray.results.sweep import SweepFolder
    from seer_ray.status.find import split
    from seer_ray.status.read import view_folder
    from seer_ray.sweeps.points import expand

    folder = view_folder(uri)
    command = SweepConfig.command if isinstance(folder, SweepFolder) else RunConfig.command
    kind = kind_named(folder.job if isinstance(folder, JobFolder) else command)
    if not kind.resumable:
        raise ConfigError(f"{uri}: made by seer-ray {kind.command}; give that command again to go on with it")
    from_yaml(folder.config_text, folder.store.locate(CONFIG), kind.config)  # what is wrong, by option
    before = from_yaml(folder.config_yaml, folder.store.locate(CONFIG), kind.config)
    before.results.folder, before.name = place, name = split(uri)
    after = (
        expand(changes, before) if isinstance(before, SweepConfig) else compose(changes, kind.config, before)
    )
    if after.name != name:
        raise ConfigError(f"name={after.name}: {uri} is resumed under its own name; leave this out")
    after.results.folder = place
    if kind.config is not SweepConfig:  # a sweep merges its points
        Identity.of(after).refuse_differences(Identity(folder.config, kind.config), uri)
    return after
