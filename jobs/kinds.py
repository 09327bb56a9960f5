"""The jobs that there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from seer_ray.config.compose import top_file
from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.measuring import (
    GatesCalibrateConfig,
    GatesEvalConfig,
    GatesPromptsConfig,
    GatesSharesConfig,
)
from seer_ray.config.options import JobConfig, RunConfig, SweepConfig
from seer_ray.config.overrides import near_miss
from seer_ray.config.study import StudyPlanConfig, StudyProbeConfig, StudyTrainConfig
from seer_ray.config.training import DistillConfig, PretrainConfig

GATED = {
    GatesSharesConfig: "model.gates",
    GatesCalibrateConfig: "model.gates",
    GatesPromptsConfig: "model.prefill_gates",
}
"""Jobs about one set of gates, and the option that names it."""


@dataclass(frozen=True)
class JobKind:
    """A job: its options, what its folder is, and its module in ``jobs``, named after its command.

    The module is imported when it is asked for: the command line must answer before torch is loaded.
    """

    config: type[JobConfig]
    mark: str
    """File that its folder has: key of ``results.base.MARKS``."""
    resumable: bool = True
    """Whether it goes on from its folder; else it begins anew."""

    @property
    def command(self) -> str:
        return self.config.command

    def named(self, words: Sequence[str]) -> list[str]:
        """Overrides that words of the command line mean which have no ``=``.

        Raises:
            ConfigError: it takes none, or not so many.
        """
        if not words:
            return []
        from seer_ray.config.command import typed

        if self.config is GatesEvalConfig:
            return [f"sets={typed(list(words))}"]
        if self.config not in GATED:
            near = near_miss(words[0], self.config)
            raise ConfigError(f"{words[0]}: must be option=value, such as results.folder=runs{near}")
        if len(words) > 1:
            raise ConfigError(f"{' '.join(words)}: {self.command} takes one set of gates; name one")
        return [f"{GATED[self.config]}={typed(words[0])}"]

    @property
    def main(self) -> Callable[[Any, Any], Any]:
        """(config, reporter) -> ``JobSummary``."""
        return resolve_name(f"seer_ray.jobs.{top_file(self.config)}:main")

    @property
    def plan(self) -> Callable[[Any], Any]:
        """(config) -> what the job would do, a dataclass. Checks all that can be checked, makes no folder."""
        return resolve_name(f"seer_ray.jobs.{top_file(self.config)}:plan")


KINDS = (
    JobKind(RunConfig, "run.json"),
    JobKind(SweepConfig, "sweep.json"),
    JobKind(PretrainConfig, "training.json"),
    JobKind(DistillConfig, "training.json"),
    JobKind(GatesEvalConfig, "training.json", resumable=False),
    JobKind(GatesSharesConfig, "training.json", resumable=False),
    JobKind(GatesCalibrateConfig, "training.json", resumable=False),
    JobKind(GatesPromptsConfig, "training.json", resumable=False),
    JobKind(StudyProbeConfig, "training.json"),
    JobKind(StudyTrainConfig, "training.json"),
    JobKind(StudyPlanConfig, "sweep.json"),
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
        raise ConfigError(
            f"{command}: no such job; must be one of {', '.join(known)}{did_you_mean(command, known)}"
        )
    return known[command]
