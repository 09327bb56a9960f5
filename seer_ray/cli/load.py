"""Options of a job from its command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import TypeVar

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig

C = TypeVar("C", default=RunConfig)


def load_config(
    file: str | None,
    overrides: list[str],
    job: type[C] = RunConfig,  # type: ignore[assignment]
) -> C:
    """The options of a job from a YAML file, if there is one, and overrides."""
    from seer_ray.config.compose import compose, from_yaml

    if file is None:
        return compose(overrides, job)
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--config {file}: cannot be read ({reason})") from None
    return compose(overrides, job, base=from_yaml(text, source=file, job=job, defaults=True))


def load_sweep(file: str | None, overrides: list[str], points: list[str]) -> SweepConfig:
    """The options of a sweep, its points spelled out.

    Args:
        file: YAML with options; None: the usual ones
        overrides: on top of them, some with several values
        points: more points, each as overrides in one text
    """
    from seer_ray.sweeps.points import expand

    base = load_config(file, [], SweepConfig) if file else None
    return expand(overrides, base, points)


def load_job(file: str | None, words: list[str]) -> tuple[str, Any]:
    """A job that is named on the command line: its command, and its options with its name.

    Args:
        file: YAML with options; None: the usual ones
        words: the command, if it is not ``run``, and overrides
    """
    from seer_ray.config.compose import run_name
    from seer_ray.config.training import DistillConfig, PretrainConfig

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
