"""``seer-ray gates``: what is done with gates beside training and decoding."""

from __future__ import annotations

import dataclasses
import sys
from enum import StrEnum
from typing import Annotated

import typer

gates = typer.Typer(help="Attention gates: formats, and how good they are.")

SourceArgument = Annotated[str, typer.Argument(metavar="GATES", help="gate folder, .pth file or hub id")]
FolderArgument = Annotated[str, typer.Argument(metavar="FOLDER", help="where to write; must hold no gates")]


class GateDtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


DtypeOption = Annotated[GateDtype | None, typer.Option(help="of the weights; default: as stored")]


@gates.command("export")
def export_gates(source: SourceArgument, folder: FolderArgument, dtype: DtypeOption = None) -> None:
    """Write gates in the released format (attn_gate_weights.pth), for the reference implementation."""
    from seer_ray.jobs.gates import convert

    typer.echo(convert(source, folder, pth=True, dtype=dtype))


@gates.command("import")
def import_gates(source: SourceArgument, folder: FolderArgument, dtype: DtypeOption = None) -> None:
    """Write released gates (attn_gate_weights.pth) in the format of seer-ray (safetensors)."""
    from seer_ray.jobs.gates import convert

    typer.echo(convert(source, folder, pth=False, dtype=dtype))


@gates.command("eval")
def eval_gates(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GATES]... [OVERRIDE]...", help="gate sets, and options such as data=FILE"),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="YAML file with options")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Measure gate sets on held-out text: attention mass kept by layer, and next tokens against dense.

    Examples: seer-ray gates eval runs/NAME/gates data=texts.jsonl | seer-ray gates eval A B data=runs/NAME
    """
    from rich.console import Console

    from seer_ray.execute import ending, load_config
    from seer_ray.gates_display import PassProgress, print_gates
    from seer_ray.terminal import kept_free, print_json
    from seer_ray.training.options import GatesEvalConfig

    sets = [word for word in words or [] if "=" not in word]
    options = load_config(config, [word for word in words or [] if "=" in word], GatesEvalConfig)
    if sets:
        options.gates = sets
    progress = PassProgress(Console(stderr=True))
    with kept_free(sys.stdout if as_json else None) as out:
        with ending(progress.close, "the same command"):
            from seer_ray.jobs.gates_eval import main

            report = main(options, progress)
        if as_json:
            print_json(dataclasses.asdict(report), out)
            return
    print_gates(Console(), report)
