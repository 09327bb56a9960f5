"""``seer-ray selectors``: what is done with selectors beside decoding."""

from __future__ import annotations

from typing import Annotated

import typer

from seer_ray.cli.terminal import FAILED, fail

selectors = typer.Typer(help="Selectors of one's own.")


@selectors.callback()
def group() -> None:
    """Selectors of one's own."""


@selectors.command("check")
def check(
    name: Annotated[str, typer.Argument(metavar="SELECTOR", help="module:Class, or one of the table")],
) -> None:
    """Whether a selector keeps to what the engine expects of it, on random keys; exit code 1: it does not.

    Examples: seer-ray selectors check quest | seer-ray selectors check my_selectors:Norm
    """
    from seer_ray.engine.contract import check_selector

    faults = 0
    for found in check_selector(name):
        faults += found.fault is not None
        typer.echo(
            f"{'no ' if found.fault else 'ok '} {found.expected}{f': {found.fault}' if found.fault else ''}"
        )
    if faults:
        fail(f"{name}: {faults} of what is expected of a selector fails", FAILED)
