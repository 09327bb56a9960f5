"""What the driver costs: the real one, with simulated workers whose clock runs faster than time."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seer_ray.bench.simulation import Fleet, SimulatedPool, VirtualClock

if TYPE_CHECKING:
    pass


def prepare(folder: Path, problems: int) -> Path:
    """A dataset of so many problems."""
    path = folder / "data.jsonl"
    with path.open("w") as file:
        for number in range(problems):
            question = f"a = {number % 97}; b = a + {number % 13}; c = b * {number % 7}; what is c?" * 3
            file.write(
                json.dumps({"id": f"p{number}", "question": question, "answer": str(number % 10)}) + "\n"
            )
    return path


def measure(fleet: Fleet, requests: int, samples: int, folder: Path, interval: float = 1.0) -> dict[str, Any]:
    from seer_ray.bench.memory import ResidentMemory
    from seer_ray.cluster.dispatch import Dispatcher
    from seer_ray.config.options import RunConfig
    from seer_ray.driver.decode import decode
    from seer_ray.driver.frame import Frame
    from seer_ray.driver.rendered import clock_of
    from seer_ray.driver.requests import Renderer
    from seer_ray.driver.session import Session
    from seer_ray.driver.stopping import StopRequest
    from seer_ray.results.folder import RunFolder
    from seer_ray.status.live import NullReporter
    from seer_ray.tasks.datasets import load_problems

    config = RunConfig(name="bench", samples=samples)
    config.model.name = "reasoner"
    config.task.data = str(prepare(folder, requests // samples))
    config.task.grader = "none"
    config.sampling.max_new_tokens = fleet.longest
    config.tracking.enabled = False
    config.results.report = False
    memory = ResidentMemory()
    memory.forget_peak()
    began = time.perf_counter()
    clock = VirtualClock()
    with RunFolder.open(str(folder / "bench"), config) as held:
        frame = Frame(config, held, NullReporter(), StopRequest(), clock=clock)
        session = Session(frame, load_problems(config.task))
        session.begin()
        pool = SimulatedPool(fleet, clock, interval)
        when = clock_of(held)
        queue = session.prepare(config, Renderer(config, when), when)
        pool.queued = lambda: queue.queued
        prepared = time.perf_counter() - began
        dispatcher = Dispatcher([queue], pool, lambda line: None, clock)  # type: ignore[arg-type]
        start = time.perf_counter()
        with contextlib.closing(session), contextlib.closing(pool):
            clock.leave()
            decode(dispatcher, [session], frame.stop)
        took = time.perf_counter() - start
        peak = memory.peak()
        keys = held.committed()
        wanted = requests // samples * samples
        rows = held.read(["problem_id"]).num_rows
    slots = pool.waited + pool.idle + pool.busy
    return {
        "workers": fleet.workers,
        "requests": requests,
        "prepare_s": prepared,
        "simulated_s": clock.now,
        "wall_s": took,
        "driver_s": clock.driver,
        "ms_per_request": clock.driver / requests * 1e3,
        "core": clock.driver / clock.now,
        "peak_mib": peak / 2**20,
        "waited": pool.waited / slots,
        "tail_idle": pool.idle / slots,
        "reports": pool.reports,
        "deaths": pool.deaths,
        "lost": wanted - len(keys),
        "doubled": rows - len(keys),
    }


if __name__ == "__main__":
    import sys

    with tempfile.TemporaryDirectory() as folder:
        workers, requests, median = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
        if len(sys.argv) > 4:
            import cProfile
            import pstats

            with cProfile.Profile() as profile:
                print(json.dumps(measure(Fleet(workers, median=median), requests, 4, Path(folder)), indent=1))
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        else:
            print(json.dumps(measure(Fleet(workers, median=median), requests, 4, Path(folder)), indent=1))
