"""Commands with a job: here, or sent to a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from seer_ray.cli.execute import begin, execute
from seer_ray.cli.load import (
    ConfigOption,
    DryRunOption,
    OverridesArgument,
    PrintConfigOption,
    RunArgument,
    load_config,
    remark,
)
from seer_ray.cli.terminal import FAILED, INTERRUPTED, JsonOption, fail, stop
from seer_ray.config.errors import JobError
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.training import DistillConfig, PretrainConfig


def run(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decode, grade and record a dataset. The same command again goes on where it was stopped.

    Examples: seer-ray run | seer-ray run selector=dense | seer-ray run task=gsm8k task.limit=64 samples=2
    """
    begin(load_config(config, overrides or [], RunConfig), as_json, dry_run, print_config)


def sweep(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="POINT", help="a point by name, e.g. 'selector=quest selector.budget=512'"),
    ] = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run many settings over the same problems, in turns, and compare them with dense attention.

    An option or a group may have several values; all combinations are run. The same command again goes on.

    Examples: seer-ray sweep selector=quest,window selector.budget=256,512 | seer-ray sweep sweep=selectors
    """
    found = load_config(config, overrides or [], SweepConfig, points=point or [])
    begin(found, as_json, dry_run, print_config)


def resume(
    run: RunArgument,
    overrides: OverridesArgument = None,
    retry_errors: Annotated[
        str | None,
        typer.Option(
            metavar="[=KIND,...]",
            help="decode error rows anew: all, or those of some kinds: input, engine, worker",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run, a sweep or a training job. Overrides: what changes no row, as cluster.workers=2."""
    from seer_ray.jobs.load import RESUME, load_job

    retried = [f"results.retry_errors=[{retry_errors}]"] if retry_errors else []
    begin(load_job(None, [RESUME, run, *(overrides or []), *retried]), as_json, dry_run, print_config)


def grade(run: RunArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> None:
    """Grade the rows of a run, or of a sweep, by another grader; metrics and report are made again.

    Killed, it goes on. Examples: seer-ray grade RUN grader=exact | seer-ray grade SWEEP grader=mine:judge
    """
    from seer_ray.jobs import grade as job

    config, runs = job.load(run, overrides or [])
    again = f"seer-ray grade {run} {' '.join(overrides or [])}"
    execute(config, as_json, lambda config, reporter: job.main(config, runs, reporter), again)


def submit(
    job: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JOB] OVERRIDE",
            help="any command with a job (run is the default), or resume RUN; then its own words",
        ),
    ] = None,
    config: ConfigOption = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray's dashboard; default: RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265"),
    ] = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
) -> None:
    """Send a job to a Ray cluster as a Ray job and follow its log. The same command again goes on with it.

    Examples: seer-ray submit selector=dense | seer-ray submit sweep selector=quest,window
    """
    from seer_ray.cluster.submit import submit as send
    from seer_ray.jobs.load import load_job

    made = load_job(config, job or [], remark)
    if dry_run or print_config:
        begin(made, False, dry_run, print_config)
        return
    try:
        code = send(made, address)
    except JobError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        stop("no longer following; the job goes on, and the same command follows it again", INTERRUPTED)
    raise typer.Exit(code)


def pretrain(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a small model from scratch on the built-in problems. The same command again goes on with it.

    Examples: seer-ray pretrain | seer-ray pretrain train.steps=200 data.end=30 architecture.layers=2
    """
    begin(load_config(config, overrides or [], PretrainConfig), as_json, dry_run, print_config)


def distill(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the attention gates of a frozen model. The same command again goes on with it.

    Examples: seer-ray distill data=runs/NAME | seer-ray distill data=texts.jsonl model.name=Qwen/Qwen3-4B
    """
    begin(load_config(config, overrides or [], DistillConfig), as_json, dry_run, print_config)
