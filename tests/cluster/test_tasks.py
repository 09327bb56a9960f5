"""Tasks over Ray actors: done once each, whatever dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from seer_ray.cluster.connect import connected
from seer_ray.cluster.placement import Placement
from seer_ray.cluster.tasks import Do, TaskPool
from seer_ray.config.errors import ConfigError, JobError
from seer_ray.config.options import ClusterConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def build(folder: str, device: str) -> Do:
    """Squares numbers; ``die`` ends the process, ``die once`` the first time only."""

    def do(task: str) -> int:
        mark = Path(folder, task)
        if task.startswith("die") and not (task == "die once" and mark.exists()):
            mark.write_text("")
            os._exit(1)
        if task == "refuse":
            raise ConfigError("task=refuse: is refused")
        return 0 if task.startswith("die") else int(task) ** 2

    return do


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[TaskPool]:
    config = ClusterConfig(max_attempts=2)
    with connected(config) as watch:
        made = TaskPool(partial(build, str(tmp_path)), Placement(2, 0.5, 0.0), config, watch)
        yield made
        made.close()


def test_a_task_whose_worker_dies_is_given_to_another(pool: TaskPool) -> None:
    said: list[str] = []
    pool.note = said.append
    done: dict[int, int] = {}
    tasks = ["1", "die once", "3", "4"]

    def take(number: int, result: int, seconds: float) -> None:
        assert number not in done and seconds >= 0
        done[number] = result

    pool.run(tasks, tasks, take)
    assert done == {0: 1, 1: 0, 2: 9, 3: 16}
    assert len(said) == 1 and said[0].startswith("die once: its worker died")


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("refuse", ConfigError, "task=refuse: is refused"),
        ("die", JobError, "die: its worker died .*, 2 times"),
    ],
)
def test_one_that_cannot_be_done(pool: TaskPool, task: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pool.run(["2", task], ["2", task], lambda *_: None)
