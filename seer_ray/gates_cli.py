"""``seer-ray gates``: what is done with gates beside training and decoding."""

from __future__ import annotations

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
