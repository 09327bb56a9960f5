"""What the driver costs: the real one, from the dataset to rows on disk, with simulated workers."""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seer_ray.bench.show import numbers, show

if TYPE_CHECKING:
    from rich.console import Console

    from seer_ray.bench.simulation import Fleet, SimulatedPool
    from seer_ray.config.options import RunConfig

ROWS = [10_000]
"""Requests of the job, one case each."""
COLUMNS = {
    "workers": "workers",
    "requests": "requests",
    "ms_per_request": "ms each",
    "core": "of a core",
    "core_all": "with the end",
    "peak_mib": "MiB",
    "first_s": "begun, s",
    "resumed_first_s": "again, s",
    "waited": "waited",
    "tail_idle": "idle",
    "deaths": "deaths",
    "of_undisturbed": "of calm",
    "errors": "errors",
    "lost": "lost",
    "doubled": "doubled",
}
"""Figures of a case, and what they are called in the table."""


def add_options(group: argparse._ArgumentGroup) -> None:
    """Of ``seer-ray bench driver``."""
    group.add_argument("--workers", type=numbers, default=[100], help="workers (100)")
    group.add_argument("--samples", type=int, default=4, help="requests of each problem (4)")
    group.add_argument("--slots", type=int, default=64, help="chains that a worker decodes at a time (64)")
    group.add_argument("--rate", type=float, default=30.0, help="tokens a second of one chain (30)")
    group.add_argument(
        "--median", type=float, default=2000.0, help="tokens of a chain: median of a lognormal (2000)"
    )
    group.add_argument("--sigma", type=float, default=1.0, help="its sigma (1.0)")
    group.add_argument("--most-tokens", type=int, default=32768, help="tokens of a chain at most (32768)")
    group.add_argument(
        "--death-every", type=float, default=math.inf, help="seconds that a worker lives on average (no end)"
    )
    group.add_argument("--spot", type=float, default=0.0, help="share of workers on spot nodes (0)")
    group.add_argument(
        "--spot-every", type=float, default=1800.0, help="seconds that a spot node is there (1800)"
    )
    group.add_argument("--poison", type=float, default=0.0, help="share of requests that kill workers (0)")
    group.add_argument(
        "--restart", type=float, default=60.0, help="seconds until a dead worker is there again (60)"
    )
    group.add_argument(
        "--stop", type=float, default=None, help="stop at this share of the rows, and resume (do not)"
    )
    group.add_argument("--profile", default=None, help="file for a profile by function, as of cProfile")


def fleet_of(options: argparse.Namespace, workers: int) -> Fleet:
    """What is simulated."""
    from seer_ray.bench.simulation import Fleet

    names = ("slots", "rate", "median", "sigma", "most_tokens", "death_every", "spot", "spot_every")
    return Fleet(workers, **{name: getattr(options, name) for name in (*names, "poison", "restart")})


def bench_driver(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows; each case in a process of its own, if there are several: its peak of memory."""
    cases = [(workers, requests) for workers in options.workers for requests in options.rows or ROWS]
    rows = [_case(options, *case) if len(cases) == 1 else _alone(options, *case) for case in cases]
    if not options.alone:
        lines = [tuple(_said(name, row.get(name)) for name in COLUMNS) for row in rows]
        show(console, "Driver", tuple(COLUMNS.values()), lines)
    settings = {name: getattr(options, name) for name in FLAGS if name not in ("stop", "profile")}
    if math.isinf(settings["death_every"]):
        settings["death_every"] = None
    return {"settings": settings, "rows": rows}


def _case(options: argparse.Namespace, workers: int, requests: int) -> dict[str, Any]:
    if requests < options.samples:
        raise ValueError(f"--rows {requests}: must be {options.samples} (--samples) at least")
    fleet = fleet_of(options, workers)
    faulty = fleet.death_every < math.inf or fleet.spot or fleet.poison
    with tempfile.TemporaryDirectory(prefix="seer-ray-bench-") as folder:
        place = Path(folder)
        row = measure(fleet, requests, options.samples, place / "one", options.stop, options.profile)
        row["of_undisturbed"] = None
        if faulty:
            calm = replace(fleet, death_every=math.inf, spot=0.0, poison=0.0)
            other = measure(calm, requests, options.samples, place / "two")
            row["of_undisturbed"] = round(other["simulated_s"] / row["simulated_s"], 4)
    return row


def _alone(options: argparse.Namespace, workers: int, requests: int) -> dict[str, Any]:
    given = dict(vars(options), workers=[workers], rows=[requests])
    words = ["driver", "--json", "--alone"]
    for name in (*FLAGS, "workers", "rows"):
        value = given[name]
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value[0] if isinstance(value, list) else value)]
    result = subprocess.run(
        [sys.executable, "-m", "seer_ray.jobs.bench", *words], stdout=subprocess.PIPE, text=True
    )
    if result.returncode:
        raise RuntimeError(f"seer-ray bench {' '.join(words)} failed")
    row: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])["driver"]["rows"][0]
    return row


FLAGS = (
    *("samples", "slots", "rate", "median", "sigma", "most_tokens", "death_every", "spot", "spot_every"),
    *("poison", "restart", "stop", "profile"),
)


def _said(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in ("core", "core_all", "waited", "tail_idle", "of_undisturbed"):
        return f"{100 * value:.2f} %"
    return f"{value:,.3f}" if name == "ms_per_request" else f"{value:,.0f}"


def write_dataset(path: Path, problems: int) -> None:
    """So many problems."""
    with path.open("w") as file:
        for number in range(problems):
            question = f"a = {number % 97}; b = a + {number % 13}; c = b * {number % 7}; what is c?" * 3
            row = {"id": f"p{number}", "question": question, "answer": str(number % 10)}
            file.write(json.dumps(row) + "\n")


def measure(
    fleet: Fleet,
    requests: int,
    samples: int,
    folder: Path,
    stop: float | None = None,
    profile: str | None = None,
) -> dict[str, Any]:
    """One job.

    Args:
        fleet: What is simulated.
        requests: Of the job.
        samples: Of each problem.
        folder: For its data and its rows; is made.
        stop: Share of the rows at which the driver is stopped and started again; None: it is not.
        profile: File for a profile of the whole; None: there is none.
    """
    from seer_ray.bench.memory import ResidentMemory
    from seer_ray.bench.simulation import SimulatedPool, VirtualClock
    from seer_ray.config.options import RunConfig
    from seer_ray.results.folder import RunFolder

    problems = requests // samples
    folder.mkdir(parents=True)
    write_dataset(folder / "data.jsonl", problems)
    config = RunConfig(name="bench", samples=samples)
    config.model.name, config.task.data = "reasoner", str(folder / "data.jsonl")
    config.task.grader, config.tracking.enabled = "none", False
    config.sampling.max_new_tokens, config.results.folder = fleet.most_tokens, str(folder)
    memory = ResidentMemory()
    memory.forget_peak()
    profiler = cProfile.Profile(time.process_time) if profile else contextlib.nullcontext()
    clock, beside = VirtualClock(), _children()
    first = []
    with profiler:
        for limit in (None,) if stop is None else (int(stop * problems * samples), None):
            pool = SimulatedPool(fleet, clock, config.cluster.report_interval)
            first.append(_session(config, pool, limit))
    if isinstance(profiler, cProfile.Profile):
        profiler.dump_stats(str(profile))
    peak = memory.peak() + memory.before
    with RunFolder.view(str(folder / "bench")) as held:
        keys, found = held.committed(), held.read(["error"])
    slots = pool.waited + pool.idle + pool.busy
    return {
        "workers": fleet.workers,
        "requests": requests,
        "ms_per_request": round(clock.driver / requests * 1e3, 4),
        "ms_beside": round((_children() - beside) / requests * 1e3, 4),
        "core": round(pool.crowded[1] / max(pool.crowded[0], 1e-9), 4),
        "core_all": round(clock.driver / clock.now, 4),
        "driver_s": round(clock.driver, 3),
        "simulated_s": round(clock.now, 1),
        "peak_mib": round(peak / 2**20),
        "first_s": round(first[0], 2),
        "resumed_first_s": round(first[1], 2) if stop is not None else None,
        "waited": round(pool.waited / slots, 6),
        "tail_idle": round(pool.idle / slots, 4),
        "reports": pool.reports,
        "deaths": pool.deaths,
        "errors": found.num_rows - found["error"].null_count,
        "lost": problems * samples - len(keys),
        "doubled": found.num_rows - len(keys),
    }


def _children() -> float:
    """CPU seconds of the processes that this one has started, and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _session(config: RunConfig, pool: SimulatedPool, limit: int | None) -> float:
    """A session of the driver, stopped at so many rows; seconds until it sent its first request."""
    from seer_ray.cluster.dispatch import Dispatcher
    from seer_ray.config.errors import Interrupted
    from seer_ray.driver.decode import decode
    from seer_ray.driver.frame import Frame
    from seer_ray.driver.rendered import clock_of
    from seer_ray.driver.requests import Renderer
    from seer_ray.driver.session import Session
    from seer_ray.driver.stopping import StopRequest
    from seer_ray.results.folder import RunFolder
    from seer_ray.results.store import join
    from seer_ray.status.live import NullReporter
    from seer_ray.tasks.datasets import load_problems

    began, stop = time.perf_counter(), StopRequest()
    with RunFolder.open(join(config.results.folder, str(config.name)), config) as folder:
        frame = Frame(config, folder, NullReporter(), stop, clock=pool.clock)
        session = Session(frame, load_problems(config.task))
        session.begin()
        when = clock_of(folder)
        renderer = Renderer(config, when)
        queue = session.prepare(config, renderer, when)
        pool.queued = lambda: queue.queued
        pool.clock.waited = lambda: renderer.waited
        dispatcher = Dispatcher([queue], pool, frame.reporter.note, pool.clock)  # type: ignore[arg-type]

        def look() -> None:
            stop.asked = limit is not None and session.monitor.live.done >= limit

        with (
            contextlib.closing(session),
            contextlib.closing(pool),
            contextlib.closing(renderer),
            contextlib.suppress(Interrupted),
        ):
            pool.clock.leave()
            decode(dispatcher, [session], stop, look)
    assert pool.first_dispatch is not None, "no request was sent"
    return pool.first_dispatch - began
