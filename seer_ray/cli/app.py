"""``seer-ray``: the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

import typer

from seer_ray.cli import about, jobs, look
from seer_ray.cli.command import Commands, Resume
from seer_ray.cli.gates import gates
from seer_ray.cli.selectors import selectors
from seer_ray.cli.streams import install
from seer_ray.cli.study import study
from seer_ray.cli.terminal import WithoutSecrets

Command = Callable[..., None]

app = typer.Typer(
    cls=Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Batches of long chains of thought on a Ray cluster, with block-sparse attention.",
)

JOBS: tuple[Command, ...] = (
    *(jobs.run, jobs.sweep, jobs.resume, jobs.grade, jobs.submit),
    *(jobs.pretrain, jobs.distill),
)
LOOKS: tuple[Command, ...] = (look.status, look.show, look.compare, look.report, look.export)
ABOUT: tuple[Command, ...] = (about.options, about.models)

for command in JOBS:
    app.command(cls=Resume if command is jobs.resume else None)(command)
app.add_typer(gates, name="gates")
app.add_typer(study, name="study")
app.command("list")(look.list_jobs)
for command in (*LOOKS, *ABOUT):
    app.command()(command)
app.add_typer(selectors, name="selectors")
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)(about.bench)


def main() -> None:
    install()
    if logging.lastResort is not None:  # what writes warnings, as nobody sets logging up
        logging.lastResort.addFilter(WithoutSecrets())
    app()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        from seer_ray import __version__

        typer.echo(f"seer-ray {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit()


if __name__ == "__main__":
    main()
