"""Options of a job that is there already."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig

if TYPE_CHECKING:
    pass


def resumed_run(uri: str, changes: list[str]) -> RunConfig:
    """The options of a run that is there, with changes that change no row."""
    from seer_ray.config import identity
    from seer_ray.config.compose import compose, from_yaml
    from seer_ray.results.folder import RunFolder
    from seer_ray.status.find import split

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
    from seer_ray.config.compose import from_yaml
    from seer_ray.results.sweep import SweepFolder
    from seer_ray.status.find import split
    from seer_ray.sweeps.points import expand

    folder = SweepFolder.view(uri)
    before = from_yaml(folder.config_yaml, folder.store.locate("config.yaml"), SweepConfig)
    before.results.folder, before.name = place, name = split(uri)
    after = expand(changes, before)
    if after.name != name:
        raise ConfigError(f"name={after.name}: {uri} is resumed under its own name; leave this out")
    after.results.folder = place
    return after


def resume_argument(config: Any) -> str:
    """What to give to ``seer-ray resume`` for this job."""
    from seer_ray.results.store import join

    return (
        str(config.name) if config.results.folder == "runs" else join(config.results.folder, str(config.name))
    )


def resumed_training(uri: str, changes: list[str]) -> tuple[str, Any]:
    """The command of a training job that is there, and its options with changes that change no result.

    Raises:
        ConfigError: Its folder is torn, or it cannot be resumed so.
    """
    from seer_ray.config import identity
    from seer_ray.config.compose import compose, from_yaml
    from seer_ray.results.folder import CONFIG
    from seer_ray.results.job import TrainFolder
    from seer_ray.status.find import split
    from seer_ray.status.training import jobs

    folder = TrainFolder.view(uri)
    if (job := folder.job) not in jobs():
        raise ConfigError(f"{uri}: made by seer-ray {job}; give that command again to go on with it")
    before = from_yaml(folder.config_yaml, folder.store.locate(CONFIG), jobs()[job])
    before.results.folder, before.name = place, name = split(uri)
    after = compose(changes, jobs()[job], before)
    if after.name != name:
        raise ConfigError(f"name={after.name}: {uri} is resumed under its own name; leave this out")
    after.results.folder = place
    identity.refuse_differences(dataclasses.asdict(after), folder.config, uri, jobs()[job])
    return job, after
