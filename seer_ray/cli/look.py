"""Commands that look at jobs: how they stand, what came of them."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from seer_ray.cli.load import RunArgument
from seer_ray.cli.terminal import JsonOption, console, print_json
from seer_ray.cli.watch import show_status
from seer_ray.config.errors import ConfigError

RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="folders of runs or sweeps, or their names")
]
MarginOption = Annotated[float, typer.Option(help="accuracy that may be lost, in points")]
ConfidenceOption = Annotated[float, typer.Option(help="of intervals and claims, in percent")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="COLUMN=VALUE", help="only rows with it, of task.columns.keep"),
]


def list_jobs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="where run folders are made")] = "runs",
    as_json: JsonOption = False,
) -> None:
    """The jobs in a folder: what they are, how they stand, how far they came; the latest last."""
    from seer_ray.cli.display.listing import listing
    from seer_ray.status.read import read_all

    found = read_all(folder)
    if as_json:
        rows = [{**dataclasses.asdict(one), "message": one.message} for one in found]
        print_json({"jobs": rows})
    else:
        console().print(listing(found, folder))


def status(
    run: RunArgument,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="follow it until it ends")] = False,
) -> None:
    """How a run, a sweep or a training job stands, from its folder alone: while it runs and after."""
    from seer_ray.status.find import find_run

    show_status(find_run(run), as_json, watch)


def show(
    run: RunArgument,
    problem: Annotated[
        str | None, typer.Argument(metavar="PROBLEM", help="id of one problem: its chains in full")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="only the chain of this number")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="only what is not right")] = False,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """The rows of a run; of one problem what was asked, the reasoning, the answer and its grade.

    Examples: seer-ray show NAME --wrong | seer-ray show NAME PROBLEM | seer-ray show SWEEP/points/dense
    """
    from seer_ray.analysis.chains import chosen
    from seer_ray.cli.display.chains import print_chains, print_rows
    from seer_ray.status.find import find_run

    rows = chosen(find_run(run), problem, sample, wrong, filters(where))
    if as_json:
        print_json({"rows": rows})
    elif problem is None:
        print_rows(console(), rows)
    else:
        print_chains(console(), rows)


def compare(
    runs: RunsArgument,
    baseline: Annotated[
        str | None, typer.Option(help="which of them to compare with; default: the dense one, else the first")
    ] = None,
    margin: MarginOption = 2.0,
    confidence: ConfidenceOption = 95.0,
    where: WhereOption = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="apart for each value of it, of task.columns.keep")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Runs of the same problems side by side: differences with error bars, and which setting to take."""
    from seer_ray.analysis.comparison import against, against_by
    from seer_ray.cli.display.comparison import print_comparison, print_groups
    from seer_ray.status.find import find_run

    uris = [find_run(run) for run in runs]
    if by is not None:
        name, groups = against_by(uris, by, baseline, confidence / 100, filters(where))
        if as_json:
            print_json({"baseline": name, "groups": [dataclasses.asdict(group) for group in groups]})
        else:
            print_groups(console(), by, name, groups, confidence)
        return
    found = against(uris, baseline, margin / 100, confidence / 100, filters(where))
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_comparison(console(), found)


def report(
    runs: RunsArgument,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="default: the run's own; of several: report"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="of the page; default: the folders' names")] = None,
    margin: MarginOption = 2.0,
    confidence: ConfidenceOption = 95.0,
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


def filters(words: list[str] | None) -> dict[str, str]:
    """Columns and the values that they must have.

    Raises:
        ConfigError: a word that is not COLUMN=VALUE.
    """
    pairs = [word.partition("=") for word in words or ()]
    if bad := [column for column, equals, _ in pairs if not equals or not column]:
        raise ConfigError(f"--where {bad[0]}: must be COLUMN=VALUE, such as subject=Algebra")
    return {column: value for column, _, value in pairs}
