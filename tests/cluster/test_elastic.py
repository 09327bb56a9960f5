"""Places that come and go, without Ray: what a pool has of slots, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from seer_ray.cluster import nodes, slot, worker_pool
from seer_ray.cluster.nodes import Node, first_nodes
from seer_ray.cluster.placement import Placement, place_workers
from seer_ray.cluster.watch import ClusterLost, ClusterWatch
from seer_ray.cluster.worker_pool import WorkerPool
from seer_ray.config.errors import JobError
from seer_ray.config.options import ClusterConfig, RunConfig


class Actors:
    """Stands for those of a worker: it never says anything."""

    def __init__(self, *about: Any) -> None:
        self.first, self.following, self.started, self.placed = object(), [], object(), []
        self.killed = False

    def kill(self) -> Any:
        self.killed = True
        return SimpleNamespace(is_alive=lambda: False, join=lambda seconds: None)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., WorkerPool]:
    monkeypatch.setattr(worker_pool, "WorkerActors", Actors)
    monkeypatch.setattr(slot, "BACKOFF", 0.0)

    def pool(places: int, local: bool = False, **cluster: Any) -> WorkerPool:
        config = RunConfig(cluster=ClusterConfig(**cluster))
        return WorkerPool(config, Placement(places, 1, 0), lambda config: None, ClusterWatch({}, local=local))  # type: ignore[arg-type, return-value]

    return pool


def cpus(*counts: int, leaving: int = 0) -> list[Node]:
    """Nodes with so many CPUs, the last ones with a notice."""
    staying = len(counts) - leaving
    return [Node(f"n{n}", "", {"CPU": float(c)}, n >= staying) for n, c in enumerate(counts)]


def test_nodes_that_join_later_are_used_as_far_as_there_is_work(make: Callable[..., WorkerPool]) -> None:
    pool = make(1)
    pool.start(100)
    assert (pool.alive, pool.size) == (1, 1)
    pool._watch.nodes = cpus(1, 2, 1)
    pool.start(100)
    assert (pool.alive, pool.size) == (4, 4)
    pool._watch.nodes = cpus(1, 2, 1, 8)
    pool.start(6)
    assert (pool.alive, pool.size) == (6, 6), "no more workers than requests"


def test_a_local_ray_does_not_grow(make: Callable[..., WorkerPool]) -> None:
    pool = make(1, local=True)
    pool._watch.nodes = cpus(8)
    pool.start(100)
    assert pool.alive == 1


def test_places_that_go_are_not_waited_for(make: Callable[..., WorkerPool]) -> None:
    pool = make(3)
    pool._watch.nodes = cpus(1, 1, 1)
    pool.start(100)
    for gone in pool._slots[1:]:
        pool._end(gone)
    pool._watch.nodes = cpus(1, 1, 1, leaving=2)
    pool.start(100)
    assert (pool.alive, pool.size) == (1, 1)
    pool._watch.nodes = cpus(1, 1)
    pool.start(100)
    assert (pool.alive, pool.size) == (2, 2)
    names = [found.name for found in pool._slots]
    assert names[0] == "w0" and "w1.1" in names, "a name is never used twice"


def test_told_workers_wait_for_nodes(make: Callable[..., WorkerPool]) -> None:
    pool = make(4, workers=4)
    pool._watch.nodes = cpus(1)
    pool.start(100)
    assert pool.alive == 4, "a cluster that grows when it is asked sees what is wanted"
    fits = place_workers([{"CPU": 1.0}], ClusterConfig(workers=4, num_cpus=1), 100, grows=True)
    assert fits == Placement(4, 1, 0)
    assert place_workers([], ClusterConfig(num_gpus=1), 100, grows=True) == Placement(1, 1, 1)


def test_workers_of_a_cluster_that_is_lost_are_not_ended_through_ray(make: Callable[..., WorkerPool]) -> None:
    """A ray.kill that is under way when Ray is left takes the driver's process down."""
    pool = make(2, local=True)
    pool.start(100)
    actors: list[Any] = [found.actors for found in pool._slots]
    pool._watch.lost = "the head is gone"
    pool.close()
    assert not any(one.killed for one in actors)
    pool._watch.lost = None
    pool.close()
    assert all(one.killed for one in actors)


def fail(pool: WorkerPool, number: int, reason: str) -> None:
    pool._dead(pool._slots[number], worker_pool.Death(reason))


def test_starts_that_fail_are_tried_one_at_a_time_and_end_the_job(make: Callable[..., WorkerPool]) -> None:
    pool = make(3, local=True)
    pool.start(100)
    assert pool.alive == 3
    for number in range(3):
        fail(pool, number, "weights are torn")
    for _ in range(2):
        pool.start(100)
        assert pool.alive == 1
        (number,) = [found.number for found in pool._slots if found.actors is not None]
        fail(pool, number, "weights are torn")
    with pytest.raises(JobError, match=r"^no worker could be started: weights are torn$"):
        pool.start(100)


def test_a_place_whose_starts_fail_is_never_given_up_while_others_work(
    make: Callable[..., WorkerPool],
) -> None:
    pool = make(2, local=True)
    pool.start(100)
    pool._slots[0].ready, pool._at_work["w0"] = True, pool._slots[0]
    for _ in range(20):
        fail(pool, 1, "no space left")
        pool.start(100)
        assert pool.alive == 2
    limited = make(2, local=True, max_failed_starts=3)
    limited.start(100)
    limited._slots[0].ready, limited._at_work["w0"] = True, limited._slots[0]
    for _ in range(3):
        fail(limited, 1, "no space left")
        limited.start(100)
    assert (limited.alive, limited.size) == (1, 1)


def test_pauses_between_starts_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    found, pauses = slot.Slot(0), []
    for _ in range(12):
        found.failed(None)
        pauses.append(round(found.not_before - time.monotonic()))
    assert pauses[:5] == [1, 2, 4, 8, 16] and pauses[-1] == slot.LONGEST


def test_a_cluster_without_nodes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "PAUSE", 0.0)
    states = [[], [Node("head", "", {"memory": 1.0})], cpus(2)]
    monkeypatch.setattr(nodes, "alive_nodes", lambda: states.pop(0))
    said: list[str] = []
    watch = ClusterWatch({}, local=False)
    assert first_nodes(watch, ClusterConfig(), said.append) == [{"CPU": 2.0}]
    assert len(said) == 2 and all("waiting for nodes: none has a CPU or a GPU yet" in text for text in said)
    states[:] = [[]]
    assert first_nodes(watch, ClusterConfig(num_gpus=1), said.append) == [], "it is known what is needed"
    watch.lost = "the head is gone"
    with pytest.raises(ClusterLost):
        first_nodes(watch, ClusterConfig(), said.append)
