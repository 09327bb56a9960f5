"""``seer-ray study``: what layers of other kinds cost and bring."""

from __future__ import annotations

from typing import Annotated

import typer

from seer_ray.cli.execute import begin
from seer_ray.cli.load import ConfigOption, DryRunOption, OverridesArgument, PrintConfigOption, load_config
from seer_ray.cli.terminal import JsonOption
from seer_ray.config.study import StudyPlanConfig, StudyProbeConfig, StudyTrainConfig

study = typer.Typer(
    help="Layers of other kinds: what a model relies on, and what a plan of its layers costs."
)


@study.command()
def probe(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Relax layers of a pretrained model, alone and in company, and choose which should stay dense.

    Measured as the weights are, with nothing trained afterwards: what this model relies on, not what a model
    needs. The same command again goes on.

    Examples: seer-ray study probe data=texts.jsonl | seer-ray study probe data=FILE choice.cheap=gated
    """
    begin(load_config(config, overrides or [], StudyProbeConfig), as_json, dry_run, print_config)


@study.command()
def train(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train small models from scratch, alike in all but how their layers mix tokens, and compare them.

    All models of a seed see the same data in the same order and have as many weights, within 1 %. The same
    command again goes on.

    Examples: seer-ray study train study=linear-cpu | seer-ray study train study.mixers=[gla,retnet]
    """
    begin(load_config(config, overrides or [], StudyTrainConfig), as_json, dry_run, print_config)


@study.command()
def plan(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="POINT", help="a point by name, e.g. 'plan.ratio=3 plan.cheap=window'"),
    ] = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a task with dense, gated and window layers at equal reads, compared as a sweep does.

    Examples: seer-ray study plan plan.equal_at=1088 selector.budget=640
    """
    made = load_config(config, overrides or [], StudyPlanConfig, points=point or [])
    begin(made, as_json, dry_run, print_config)
