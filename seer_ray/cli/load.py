"""Arguments and options that commands have in common."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typing_extensions import TypeVar

from seer_ray.cli.complete import complete_override, complete_run
from seer_ray.config.options import JobConfig, RunConfig

C = TypeVar("C", bound=JobConfig, default=RunConfig)

OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDE",
        help="group=choice or option=value; all of them: seer-ray options",
        autocompletion=complete_override,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="a job's folder, or its name under runs/", autocompletion=complete_run
    ),
]
ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="YAML file with options; overrides go on top")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="check everything, say what would be done, and do nothing")
]
PrintConfigOption = Annotated[
    bool,
    typer.Option("--print-config", help="print all options as they are resolved, as YAML, and do nothing"),
]


def load_config(
    file: str | None,
    overrides: list[str],
    job: type[C] = RunConfig,  # type: ignore[assignment]
    **more: Any,
) -> C:
    """The options of a job, see ``jobs.load``; what a person should know is said on stderr."""
    from seer_ray.jobs.load import load_config as load

    return load(file, overrides, job, note=remark, **more)


def remark(line: str) -> None:
    """Say what a person should know before a job begins."""
    typer.echo(f"note: {line}", err=True)
