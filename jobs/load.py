"""Options of a job from words and files, or from its folder: what the command line and Python share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypeVar

from seer_ray.config.errors import ConfigError
from seer_ray.config.escapes import typed_escapes
from seer_ray.config.options import JobConfig, RunConfig, SweepConfig
from seer_ray.jobs.kinds import KINDS, kind_named

C = TypeVar("C", bound=JobConfig, default=RunConfig)

RESUME = "resume"
"""Stands for the command that made a folder."""
_SELECTOR = re.compile(r"(?:^|\s)[+~]*(?:selector(?:\.name)?|sweep)=")
"""Words that name a selector, or a sweep of some."""

Note = Callable[[str], None]


def load_config(
    file: str | None,
    overrides: Sequence[str],
    job: type[C] = RunConfig,  # type: ignore[assignment]
    points: Sequence[str] = (),
    note: Note = lambda line: None,
) -> C:
    """The options of a job, with its name; a sweep's points are spelled out.

    Args:
        file: YAML with options; None: the usual ones
        overrides: on top of them; those of a sweep may have several values
        job: its options
        points: more points of a sweep, each as overrides in one text
        note: told, in a line each, what a person should know

    Raises:
        ConfigError: what is wrong with which option.
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
    if issubclass(job, SweepConfig):
        from seer_ray.sweeps.points import expand

        swept = expand(overrides, cast("SweepConfig | None", base), points, named=job.usual)
        config: JobConfig = job(**vars(swept))
    else:
        config = compose(overrides, job, base)
    config.name = run_name(config)
    if file is None and not any(map(_SELECTOR.search, [*overrides, *points])):
        for line in implied(config):
            note(line)
    for line in typed_escapes(config):
        note(line)
    return cast(C, config)


def implied(config: JobConfig) -> list[str]:
    """What a job does that names no selector, where it may not be what somebody expects."""
    if not isinstance(config, RunConfig) or config.model.gates is not None:
        return []
    names = {config.selector.name}
    if isinstance(config, SweepConfig):  # a dense baseline stands beside what was asked for
        names = {point.get("selector.name") for point in config.sweep.points} - {"dense"}
    if names != {"quest"}:
        return []
    return [
        f"selector=quest, as {config.model.short} comes without gates (model.gates; seer-ray distill trains "
        "some); selector=dense reads everything"
    ]


def load_job(file: str | None, words: list[str], note: Note = lambda line: None) -> JobConfig:
    """The options of a job that is named on the command line.

    Args:
        file: YAML with options; None: the usual ones
        words: the command (none: ``run``), as its own command line has it; ``resume`` and a folder
        note: as of ``load_config``

    Raises:
        ConfigError: no such job, or what is wrong with which option.
    """
    given = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if given[:1] == [RESUME]:
        from seer_ray.status.find import find_run

        if len(given) != 2 or file is not None:
            raise ConfigError(f"{' '.join(given)}: must be resume RUN, one folder or name, and no --config")
        return resumed(find_run(given[1], places(overrides)), overrides)
    commands = sorted((kind.command.split() for kind in KINDS), key=len, reverse=True)
    command = next((each for each in commands if given[: len(each)] == each), given[:1] or ["run"])
    kind, gates = kind_named(" ".join(command)), given[len(command) :]
    return load_config(file, [*kind.named(gates), *overrides], kind.config, note=note)


def places(changes: Sequence[str]) -> str:
    """Where overrides say that run folders lie: that comes before what they say of the job in one."""
    from seer_ray.config.compose import given

    said = given([word for word in changes if word.startswith("results.")], "results.folder")
    return said or RunConfig().results.folder


def resumed(uri: str, changes: Sequence[str]) -> JobConfig:
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
    after: Any = (
        expand(changes, before) if isinstance(before, SweepConfig) else compose(changes, kind.config, before)
    )
    if after.name != name:
        raise ConfigError(f"name={after.name}: {uri} is resumed under its own name; leave this out")
    after.results.folder = place
    if kind.config is not SweepConfig:  # a sweep merges its points
        Identity.of(after).refuse_differences(Identity(folder.config, kind.config), uri)
    return cast(JobConfig, after)
