"""``seer-ray``: the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import dataclasses
import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from seer_ray.cli.execute import execute
from seer_ray.cli.gates import gates
from seer_ray.cli.load import (
    ConfigOption,
    OverridesArgument,
    RunArgument,
    load_config,
    load_job,
    resumed,
)
from seer_ray.cli.streams import install
from seer_ray.cli.terminal import (
    BAD_USAGE,
    DONE,
    FAILED,
    INTERRUPTED,
    JsonOption,
    WithoutSecrets,
    console,
    fail,
    kept_free,
    print_json,
    require_written,
    stop,
)
from seer_ray.cli.watch import show_status
from seer_ray.config.errors import ConfigError, JobError
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.training import DistillConfig, PretrainConfig

# Typer has its own copy of click in some versions: the common base of what a user can do wrong.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class Commands(TyperGroup):
    """One line for everything that the user's input caused."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
        except ConfigError as error:
            fail(str(error), BAD_USAGE)
        except UsageError as error:
            hint = "see seer-ray --help; options of a job are written name=value"
            fail(f"{error.format_message()} ({hint})", BAD_USAGE)  # type: ignore[attr-defined]
        except (typer.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        require_written(sys.stdout)
        sys.exit(code if isinstance(code, int) else DONE)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Batches of long chains of thought on a Ray cluster, with block-sparse attention.",
)

app.add_typer(gates, name="gates")


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
        from importlib.metadata import version as installed

        typer.echo(f"seer-ray {installed('seer-ray')}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit()


@app.command()
def run(
    overrides: OverridesArgument = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Decode, grade and record a dataset. The same command again goes on where it was stopped.

    Examples: seer-ray run | seer-ray run selector=dense | seer-ray run task=gsm8k task.limit=64 samples=2
    """
    execute(load_config(config, overrides or []), as_json)


@app.command()
def sweep(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="POINT", help="a point by name, e.g. 'selector=quest selector.budget=512'"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print points, requests, tokens and time, and do nothing")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run many settings over the same problems, in turns, and compare them with dense attention.

    An option or a group may have several values; all combinations are run. The same command again goes on.

    Examples: seer-ray sweep selector=quest,window selector.budget=256,512 | seer-ray sweep sweep=selectors
    """
    found = load_config(config, overrides or [], SweepConfig, point or [])
    if not dry_run:
        execute(found, as_json)
        return
    from seer_ray.cli.display.sweep import print_estimate

    with kept_free(sys.stdout if as_json else None) as out:
        from seer_ray.sweeps.estimate import estimate

        estimated = estimate(found)
        if as_json:
            totals = {name: getattr(estimated, name) for name in ("requests", "most", "tokens", "seconds")}
            print_json({**dataclasses.asdict(estimated), **totals}, out)
            return
    print_estimate(console(), estimated)


@app.command()
def resume(run: RunArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> None:
    """Go on with a run, a sweep or a training job. Overrides: what changes no row, as cluster.workers=2."""
    from seer_ray.config.compose import given
    from seer_ray.status.find import find_run

    changes = overrides or []
    # Where it lies comes before what it is, and so which options it has.
    place = given([word for word in changes if word.startswith("results.")], "results.folder")
    execute(resumed(find_run(run, place or RunConfig().results.folder), changes), as_json)


@app.command()
def submit(
    job: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JOB] OVERRIDE", help="run (the default), sweep, pretrain or distill; options"
        ),
    ] = None,
    config: ConfigOption = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray's dashboard; default: RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265"),
    ] = None,
) -> None:
    """Send a job to a Ray cluster as a Ray job and follow its log. The same command again goes on with it.

    Examples: seer-ray submit selector=dense | seer-ray submit sweep selector=quest,window
    """
    from seer_ray.cluster.submit import submit as send

    made = load_job(config, job or [])
    try:
        code = send(made, address)
    except JobError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        stop("no longer following; the job goes on, and the same command follows it again", INTERRUPTED)
    raise typer.Exit(code)


@app.command()
def pretrain(
    overrides: OverridesArgument = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Train a small model from scratch on the built-in problems. The same command again goes on with it.

    Examples: seer-ray pretrain | seer-ray pretrain train.steps=200 data.end=30 architecture.layers=2
    """
    execute(load_config(config, overrides or [], PretrainConfig), as_json)


@app.command()
def distill(
    overrides: OverridesArgument = None,
    config: ConfigOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="print the computed peak memory, and do nothing")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train the attention gates of a frozen model. The same command again goes on with it.

    Examples: seer-ray distill data=runs/NAME | seer-ray distill data=texts.jsonl model.name=Qwen/Qwen3-4B
    """
    job = load_config(config, overrides or [], DistillConfig)
    if plan:
        from seer_ray.jobs.distill import plan as computed

        needed = computed(job)
        if as_json:
            print_json(dataclasses.asdict(needed) | {"total": needed.total})
        else:
            typer.echo("\n".join(needed.lines()))
        return
    execute(job, as_json)


@app.command()
def status(
    run: RunArgument,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="follow it until it ends")] = False,
) -> None:
    """How a run, a sweep or a training job stands, from its folder alone: while it runs and after."""
    from seer_ray.status.find import find_run

    show_status(find_run(run), as_json, watch)


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="folders of runs or sweeps, or their names")
    ],
    baseline: Annotated[
        str | None, typer.Option(help="which of them to compare with; default: the dense one, else the first")
    ] = None,
    margin: Annotated[float, typer.Option(help="accuracy that may be lost, in points")] = 2.0,
    confidence: Annotated[float, typer.Option(help="of intervals and claims, in percent")] = 95.0,
    as_json: JsonOption = False,
) -> None:
    """Runs of the same problems side by side: differences with error bars, and which setting to take."""
    from seer_ray.analysis.comparison import against
    from seer_ray.cli.display.comparison import print_comparison
    from seer_ray.status.find import find_run

    found = against([find_run(run) for run in runs], baseline, margin / 100, confidence / 100)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_comparison(console(), found)


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="folders of runs or sweeps of the same problems")
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="default: the run's own; of several: report"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="of the page; default: the folders' names")] = None,
    margin: Annotated[float, typer.Option(help="accuracy that may be lost, in points")] = 2.0,
    confidence: Annotated[float, typer.Option(help="of intervals and claims, in percent")] = 95.0,
    size: Annotated[float, typer.Option(help="of texts and maps in the page, in MB, about")] = 24.0,
) -> None:
    """One HTML page that needs no network: which setting to take, plots, every problem, every chain."""
    from seer_ray.report.make import make_page
    from seer_ray.results.store import open_store
    from seer_ray.status.find import find_run

    uris = [find_run(run) for run in runs]
    how = {"margin": margin / 100, "confidence": confidence / 100, "limit": int(size * 1e6)}
    made = make_page(uris, title, **how)
    store = open_store(output or (uris[0] if len(uris) == 1 else "report"))
    for name in made.write(store):
        typer.echo(store.locate(name))


@app.command()
def export(
    run: RunArgument,
    openai_batch: Annotated[
        str, typer.Option("--openai-batch", metavar="FILE", help="JSON lines, as OpenAI's batch API has them")
    ],
) -> None:
    """A run's rows in a form that other programs read."""
    from seer_ray.results.export import openai_batch as write
    from seer_ray.results.folder import RunFolder
    from seer_ray.status.find import find_run

    count = write(RunFolder.view(find_run(run)), openai_batch)
    typer.echo(f"{openai_batch}: {count:,} lines")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def bench(context: typer.Context) -> None:
    """Measure this machine. Its own arguments: seer-ray bench --help."""
    from seer_ray.jobs.bench import main as measure

    raise typer.Exit(measure(context.args))


@app.command()
def options(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="only options that begin so")] = "",
) -> None:
    """Every option: type, default, unit and meaning."""
    from seer_ray.cli.display.options import options_view
    from seer_ray.config.compose import compose

    # A sweep's are those of a run and more.
    console().print(options_view(compose([], SweepConfig), prefix))


@app.command()
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


if __name__ == "__main__":
    main()
