"""Commands that tell of options, of models, and of this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from seer_ray.cli.terminal import JsonOption, console, kept_free, print_json


def bench(context: typer.Context) -> None:
    """Measure this machine. Its own arguments: seer-ray bench --help."""
    from seer_ray.jobs.bench import main as measure

    raise typer.Exit(measure(context.args))


def options(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND] [WORD]...",
            help="of which command (else run and sweep); what names begin with, or names or meanings have",
        ),
    ] = None,
) -> None:
    """Every option: type, default, unit and meaning.

    Examples: seer-ray options engine. | seer-ray options temperature | seer-ray options distill lr
    """
    from seer_ray.cli.display.options import options_view
    from seer_ray.config.compose import compose
    from seer_ray.config.options import SweepConfig
    from seer_ray.jobs.kinds import KINDS

    # A sweep's are those of a run and more.
    given, job = list(words or ()), SweepConfig
    for kind in KINDS:
        if given[: len(kind.command.split())] == kind.command.split():
            given, job = given[len(kind.command.split()) :], kind.config  # type: ignore[assignment]
            break
    console().print(options_view(compose([], job), given))


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="a folder, a hub id, or a choice of model=")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Which model types can be decoded and how; of one model its layers and memory, without its weights.

    Examples: seer-ray models | seer-ray models Qwen/Qwen3.5-9B | seer-ray models reasoner --json
    """
    from rich.console import Console

    from seer_ray.cli.display.models import facts, model_view, type_rows, types_view

    if name is None:
        if as_json:
            print_json({"model_types": type_rows()})
        else:
            Console().print(types_view())
        return
    from seer_ray.config.compose import choices, compose
    from seer_ray.config.options import ModelConfig

    model = compose([f"model={name}"]).model if name in choices("model") else ModelConfig(name=name)
    with kept_free(sys.stdout if as_json else None) as out:
        from seer_ray.models.catalog import describe

        found = describe(model)
        if as_json:
            print_json(facts(found), out)
            return
    Console().print(model_view(found))
