"""The jobs that there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import JobConfig, RunConfig, SweepConfig
from seer_ray.config.training import DistillConfig, GatesEvalConfig, GatesSharesConfig, PretrainConfig


@dataclass(frozen=True)
class JobKind:
    """A job: its options, what runs it, and what its folder is.

    What is named by ``module:name`` is imported when it is asked for: the command line must answer before
    torch is loaded.
    """

    config: type[JobConfig]
    run: str
    """(config, reporter) -> ``JobSummary``."""
    mark: str
    """File that its folder has: key of ``results.base.MARKS``."""
    resumable: bool = True
    """Whether it goes on from its folder, also on a cluster; else it begins anew."""

    @property
    def command(self) -> str:
        return self.config.command

    @property
    def main(self) -> Callable[[Any, Any], Any]:
        return resolve_name(self.run)


KINDS = (
    JobKind(RunConfig, "seer_ray.jobs.run:main", "run.json"),
    JobKind(SweepConfig, "seer_ray.jobs.sweep:main", "sweep.json"),
    JobKind(PretrainConfig, "seer_ray.jobs.pretrain:main", "training.json"),
    JobKind(DistillConfig, "seer_ray.jobs.distill:main", "training.json"),
    JobKind(GatesEvalConfig, "seer_ray.jobs.gates_eval:main", "training.json", resumable=False),
    JobKind(GatesSharesConfig, "seer_ray.jobs.gates_shares:main", "training.json", resumable=False),
)


def kind_of(config: JobConfig) -> JobKind:
    """The job that has these options."""
    return next(kind for kind in KINDS if kind.config is type(config))


def kind_named(command: str) -> JobKind:
    """The job that a command starts.

    Raises:
        ConfigError: there is none.
    """
    known = {kind.command: kind for kind in KINDS}
    if command not in known:
        names = [name for name, kind in known.items() if kind.resumable]
        raise ConfigError(
            f"{command}: no such job; must be one of {', '.join(names)}{did_you_mean(command, names)}"
        )
    return known[command]
