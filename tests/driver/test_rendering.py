"""Prompts that processes render are those that the driver renders, also when the processes die."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tiny import save_tiny

from seer_ray.config.options import RunConfig
from seer_ray.driver.rendering import CHUNK, RenderPool, processes_for
from seer_ray.driver.requests import Renderer
from seer_ray.tasks.problem import Problem

CLOCK = datetime.fromtimestamp(1e9, UTC)


def made(number: int) -> Problem:
    if number % 10 == 9:
        return Problem(f"p{number}", (), None, error=f"line {number}: broken")
    return Problem(f"p{number}", ({"role": "user", "content": f"What is {number}?"},), None)


PROBLEMS = [made(number) for number in range(5 * CHUNK)]


@pytest.fixture
def renderer(tmp_path: Path) -> Renderer:
    config = RunConfig(name="job")
    config.model.name = str(save_tiny(tmp_path / "model", "qwen3"))
    return Renderer(config, CLOCK)


@pytest.fixture
def pool(renderer: Renderer) -> Iterator[RenderPool]:
    pool = RenderPool(renderer._config, CLOCK, 1)
    while not pool._processes[0].ready:
        pool._processes[0]._pipe.poll(60)
    yield pool
    pool.close()


def test_processes_render_what_the_driver_does(renderer: Renderer, pool: RenderPool) -> None:
    wanted = [renderer.made(problem) for problem in PROBLEMS]
    pool.expect(PROBLEMS[: 3 * CHUNK])
    # What a process has begun is waited for; what comes with it is given at once.
    found = [prompt for number in range(3) for prompt in pool.ready(f"p{number * CHUNK}")]
    assert found == wanted[: 3 * CHUNK] and any(prompt.error for prompt in found)
    assert [prompt.digest for prompt in found] == [prompt.digest for prompt in wanted[: 3 * CHUNK]]
    # What none has begun the driver renders.
    renderer._pool = pool
    renderer.expect(PROBLEMS[3 * CHUNK : 4 * CHUNK])
    assert [renderer.render(problem) for problem in PROBLEMS] == wanted


def test_a_process_that_dies_costs_nothing_but_time(renderer: Renderer, pool: RenderPool) -> None:
    renderer._pool = pool
    renderer.expect(PROBLEMS)
    pool._processes[0]._process.kill()
    assert [renderer.render(problem) for problem in PROBLEMS] == list(map(renderer.made, PROBLEMS))
    renderer.expect([made(1000)])
    assert renderer.render(made(1000)) == renderer.made(made(1000))


def test_little_work_is_not_worth_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seer_ray.driver.rendering.cores", lambda: 16)
    assert [processes_for(seconds) for seconds in (0, 4, 6, 1e6)] == [0, 0, 1, 4]
    monkeypatch.setattr("seer_ray.driver.rendering.cores", lambda: 1)
    assert processes_for(1e6) == 0


def test_processes_end_with_the_driver(renderer: Renderer) -> None:
    """However it ends."""
    script = (
        "import os, pickle, signal, sys; from seer_ray.driver.rendering import RenderPool; "
        "pool = RenderPool(pickle.loads(bytes.fromhex(sys.argv[1])), None, 1); "
        "process = pool._processes[0]; process._pipe.poll(120); assert process.ready; "
        "print(process._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    words = [sys.executable, "-c", script, pickle.dumps(renderer._config).hex()]
    # Its output ends when all that have it have ended.
    ended = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert ended.returncode == -signal.SIGKILL and ended.stdout.strip().isdigit(), ended.stderr
