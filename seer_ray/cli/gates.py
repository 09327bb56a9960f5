"""``seer-ray gates``: what is done with gates beside training and decoding."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from seer_ray.cli.arguments import ConfigOption, JsonOption
from seer_ray.config.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

gates = typer.Typer(help="Attention gates: formats, how good they are, and how layers share a budget.")

SourceArgument = Annotated[str, typer.Argument(metavar="GATES", help="gate folder, .pth file or hub id")]
FolderArgument = Annotated[str, typer.Argument(metavar="FOLDER", help="where to write; must hold no gates")]


C = TypeVar("C")


class GateDtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


DtypeOption = Annotated[GateDtype | None, typer.Option(help="of the weights; default: as stored")]


@gates.command("export")
def export_gates(source: SourceArgument, folder: FolderArgument, dtype: DtypeOption = None) -> None:
    """Write gates in the released format (attn_gate_weights.pth), for the reference implementation."""
    typer.echo(convert(source, folder, pth=True, dtype=dtype))


@gates.command("import")
def import_gates(source: SourceArgument, folder: FolderArgument, dtype: DtypeOption = None) -> None:
    """Write released gates (attn_gate_weights.pth) in the format of seer-ray (safetensors)."""
    typer.echo(convert(source, folder, pth=False, dtype=dtype))


@gates.command("eval")
def eval_gates(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GATES]... [OVERRIDE]...", help="gate sets, and options such as data=FILE"),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure gate sets on held-out text: attention mass kept by layer, and next tokens against dense.

    Examples: seer-ray gates eval runs/NAME/gates data=texts.jsonl | seer-ray gates eval A B data=runs/NAME
    """
    from seer_ray.cli.display.gates import print_gates
    from seer_ray.config.training import GatesEvalConfig

    sets, options = _options(words, config, GatesEvalConfig)
    if sets:
        options.sets = sets
    _measure("gates_eval", options, as_json, print_gates)


@gates.command("shares")
def share_budget(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GATES] [OVERRIDE]...", help="gates, and options such as data=FILE"),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Divide a budget over the layers: which should read more than others, at the same tokens in all.

    Examples: seer-ray gates shares runs/NAME/gates data=texts.jsonl budget=2048
    """
    from seer_ray.cli.display.gates import print_shares
    from seer_ray.config.training import GatesSharesConfig

    sets, options = _options(words, config, GatesSharesConfig)
    if len(sets) > 1:
        raise ConfigError(f"{' '.join(sets)}: a budget is divided for one set of gates; name one")
    if sets:
        options.model.gates = sets[0]
    _measure("gates_shares", options, as_json, print_shares)


def _options(words: list[str] | None, config: str | None, job: type[C]) -> tuple[list[str], C]:
    """Words that name gates, and the options that the others set."""
    from seer_ray.cli.load import load_config

    given = words or []
    named = [word for word in given if "=" not in word]
    return named, load_config(config, [word for word in given if "=" in word], job)


def _measure(job: str, options: Any, as_json: bool, show: Callable[[Console, Any], None]) -> None:
    """Run the job's ``main`` with a progress bar, and show its report."""
    from rich.console import Console

    from seer_ray.cli.display.gates import PassProgress
    from seer_ray.cli.execute import ending
    from seer_ray.cli.terminal import kept_free, print_json

    progress = PassProgress(Console(stderr=True))
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(progress.close, "the same command"):
            report = importlib.import_module(f"seer_ray.jobs.{job}").main(options, progress)
        if as_json:
            print_json(dataclasses.asdict(report), out)
            return
    show(Console(), report)


def convert(source: str, folder: str, pth: bool, dtype: str | None = None) -> str:
    """Gates in the other format; one line that says what was written.

    Args:
        source: Folder, file or hub id.
        folder: Where to write.
        pth: The released format; else ours.
        dtype: ``float32`` or ``bfloat16``; None: as stored.

    Raises:
        ConfigError: They cannot be read, or there are gates already.
    """
    import torch

    from seer_ray.models.gates import convert_gates

    count = convert_gates(source, folder, pth, None if dtype is None else getattr(torch, dtype))
    return f"{folder}: {count:,} weights, {'.pth' if pth else '.safetensors'}"
