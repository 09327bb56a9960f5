"""One run, from what is not committed to its end."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace

from seer_ray.analysis.comparison import compare
from seer_ray.analysis.groups import COLUMNS, groups_of
from seer_ray.cluster.connect import connected
from seer_ray.cluster.dispatch import Dispatcher
from seer_ray.cluster.nodes import first_nodes
from seer_ray.cluster.placement import place_workers
from seer_ray.cluster.run_queue import RunQueue
from seer_ray.cluster.worker import Builder, Checked
from seer_ray.cluster.worker_pool import WorkerPool
from seer_ray.config.command import command_line
from seer_ray.config.compose import usual_selector
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import PlanConfig, RunConfig
from seer_ray.config.paths import with_absolute_paths
from seer_ray.config.speculating import OFF, SPECULATE, speculates
from seer_ray.config.works import is_dense
from seer_ray.driver import told
from seer_ray.driver.decode import decode
from seer_ray.driver.rendered import clock_of
from seer_ray.driver.session import Session
from seer_ray.driver.sources import (
    look,
    note_sources,
    own_contents,
    reads_gates,
    refuse_other_sources,
    uniform_note,
)
from seer_ray.models.identity import Contents
from seer_ray.report.html import write_report
from seer_ray.report.written import FILE as REPORT
from seer_ray.results.store import join
from seer_ray.status.live import Summary


def work(session: Session, build: Builder) -> None:
    """All that is not committed, on Ray; then what the rows come to, and the report."""
    session.monitor.start("looking at the model")
    with session.frame.working():
        reading = None if session.complete else _checked(session)
        session.begin()
        if reading is not None:
            _decode(session, build, reading)
        finish(session)


def finish(session: Session) -> None:
    """What the rows of a run come to, and the report; it ends as failed if too many are errors."""
    session.conclude()
    if session.config.results.report:
        _report(session)
    if (reason := session.failure) is not None:
        session.frame.end("failed", reason)


def summary_of(session: Session) -> Summary:
    """What a run came to."""
    config, live, folder = session.config, session.monitor.live, session.folder.uri
    dense = is_dense(config.selector, config.plan)
    other = f"selector={usual_selector(config.model.gates) if dense else 'dense'}"
    if speculates(config.engine):
        other = f"{SPECULATE}={OFF}"
    batch = session.survey.batch
    plain = ["plan=null"] if config.plan != PlanConfig() else []
    plain += [f"selector.prefill.{name}=null" for name in config.selector.prefill.asked]
    return Summary(
        **session.frame.facts(),
        metrics=session.metrics(),
        rows=live.done,
        errors=live.errors,
        error_kinds=[asdict(kind) for kind in session.error_kinds()],
        groups=groups_of(session.folder.stream(COLUMNS)) if config.task.columns.keep else [],
        failure=session.failure,
        resumed=live.resumed,
        report=session.folder.store.locate(REPORT) if REPORT in session.folder.store.list() else None,
        next_commands=[
            f"""python -c "import pandas; print(pandas.read_parquet('{folder}/completions'))\"""",
            command_line(config, other, *plain),
            *([f"seer-ray resume {folder} --retry-errors"] if live.errors else []),
            *([f"seer-ray export {folder} --openai-batch answers.jsonl"] if batch else []),
        ],
    )


def _checked(session: Session) -> tuple[RunConfig, Contents]:
    """The options with the model as it is to be read, and its files: there, the same as before, and able to
    do what is asked. Before Ray is started, and anything is told to MLflow."""
    config = session.config
    gated, prefill = reads_gates(config), bool(config.selector.prefill.asked)
    sources = look(config.model, session.folder, gated=gated, prefill=prefill)
    contents = sources.contents | own_contents(config)
    refuse_other_sources(session.folder, contents)
    reading = replace(config, model=sources.model)
    # Brings torch and transformers along: a run that is done needs neither.
    from seer_ray.driver.requests import check_model

    check_model(reading)
    if note := uniform_note(reading):
        session.frame.reporter.note(note)
    return reading, contents


def _decode(session: Session, build: Builder, checked: tuple[RunConfig, Contents]) -> None:
    config, stop, missing = session.config, session.frame.stop, session.missing
    reading, contents = checked
    session.frame.tracker.tag(told.size(reading.model))
    with contextlib.closing(session), contextlib.ExitStack() as stack:
        if not missing:
            _prepare(session, checked, stack)
            decode(None, [session], stop)
            return
        session.monitor.phase("starting Ray")
        watch = stack.enter_context(connected(config.cluster, session.frame.reporter.note))
        stack.enter_context(stop.listening())
        nodes = first_nodes(watch, config.cluster, session.monitor.phase)
        ranks, grows = config.engine.tensor_parallel, not watch.local
        placement = place_workers(nodes, config.cluster, missing, ranks, grows)
        pool = WorkerPool(with_absolute_paths(reading), placement, Checked(build, contents), watch)
        stack.enter_context(contextlib.closing(pool))
        pool.start(missing)
        # While the workers load the model.
        queue = _prepare(session, checked, stack)
        session.monitor.phase("starting workers")
        decode(Dispatcher([queue], pool, session.frame.reporter.note), [session], stop)


def _prepare(session: Session, checked: tuple[RunConfig, Contents], stack: contextlib.ExitStack) -> RunQueue:
    """The queue of what is left; ``stack`` closes what renders it."""
    # Brings torch and transformers along.
    from seer_ray.driver.requests import Renderer

    reading, contents = checked
    session.monitor.phase("reading the prompts")
    clock = clock_of(session.folder)
    renderer = stack.enter_context(contextlib.closing(Renderer(reading, clock)))
    queue = session.prepare(reading, renderer, clock)
    note_sources(session.folder, contents)
    return queue


def _report(session: Session) -> None:
    frame = session.frame
    session.monitor.phase("writing the report")
    try:
        comparison = compare([join(session.config.results.folder, frame.name)])
    except ConfigError as error:
        frame.reporter.note(f"no report: {error}")
        return
    try:
        written = write_report(comparison, frame.name, frame.folder.store, frame.reporter.note)
    except OSError as error:
        # The rows and what they come to are there.
        frame.reporter.note(f"no report: {frame.folder.failure(error)}; seer-ray report {frame.folder.uri}")
        return
    for name in written:
        frame.tracker.artifact(name)
