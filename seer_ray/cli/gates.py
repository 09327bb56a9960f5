"""``seer-ray gates``: what is done with gates beside training and decoding."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from seer_ray.cli.execute import begin
from seer_ray.cli.load import ConfigOption, DryRunOption, PrintConfigOption, remark
from seer_ray.cli.terminal import JsonOption
from seer_ray.config.options import JobConfig

gates = typer.Typer(help="Attention gates: formats, how good they are, and how layers share a budget.")

SourceArgument = Annotated[str, typer.Argument(metavar="GATES", help="gate folder, .pth file or hub id")]
FolderArgument = Annotated[str, typer.Argument(metavar="FOLDER", help="where to write; must hold no gates")]


class GateDtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


DtypeOption = Annotated[GateDtype | None, typer.Option(help="of the weights; default: as stored")]


@gates.command("export")
def export_gates(source: SourceArgument, folder: FolderArgument, dtype: DtypeOption = None) -> None:
    """Write gates in the released format (attn_gate_weights.pth), for the reference implementation."""
    typer.echo(_convert(source, folder, pth=True, dtype=dtype))


@gates.command("import")
def import_gates(source: SourceArgument, folder: FolderArgument, dtype: DtypeOption = None) -> None:
    """Write released gates (attn_gate_weights.pth) in the format of seer-ray (safetensors)."""
    typer.echo(_convert(source, folder, pth=False, dtype=dtype))


@gates.command("eval")
def eval_gates(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GATES]... [OVERRIDE]...", help="gate sets, and options such as data=FILE"),
    ] = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure gate sets on held-out text: attention mass kept by layer, and next tokens against dense.

    Examples: seer-ray gates eval runs/NAME/gates data=texts.jsonl | seer-ray gates eval A B data=runs/NAME
    """
    begin(_loaded("gates eval", config, words), as_json, dry_run, print_config)


@gates.command("shares")
def share_budget(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GATES] [OVERRIDE]...", help="gates, and options such as data=FILE"),
    ] = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """How KV heads should share a budget: more for those that lose most without it, at the same mean.

    Examples: seer-ray gates shares runs/NAME/gates data=texts.jsonl 'selectors=[seer,quest]'
    """
    begin(_loaded("gates shares", config, words), as_json, dry_run, print_config)


@gates.command("calibrate")
def calibrate_gates(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GATES] [OVERRIDE]...", help="gates, and options such as data=FILE"),
    ] = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit the temperature of gates on held-out text: a mass of their shares is then that mass of attention.

    Examples: seer-ray gates calibrate runs/NAME/gates data=texts.jsonl
    """
    begin(_loaded("gates calibrate", config, words), as_json, dry_run, print_config)


@gates.command("prompts")
def eval_prompts(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GATES] [OVERRIDE]...", help="prefill gates, and options such as data=FILE"),
    ] = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure prefill gates on held-out text: attention mass kept by density and layer, and perplexity.

    Examples: seer-ray gates prompts runs/NAME/gates data=texts.jsonl length=8192
    """
    begin(_loaded("gates prompts", config, words), as_json, dry_run, print_config)


def _loaded(command: str, config: str | None, words: list[str] | None) -> JobConfig:
    from seer_ray.jobs.load import load_job

    return load_job(config, [*command.split(), *(words or ())], remark)


def _convert(source: str, folder: str, pth: bool, dtype: str | None = None) -> str:
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
