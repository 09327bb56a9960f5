"""Workers as real Ray actors in real processes, with an engine that needs no model."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import fake_engine
import pytest
import ray
from fake_engine import expected_tokens, make_request

from seer_ray.cluster.assignments import Outcome
from seer_ray.cluster.dispatch import Dispatcher
from seer_ray.cluster.placement import Placement
from seer_ray.cluster.run_queue import RunQueue
from seer_ray.cluster.watch import ClusterWatch
from seer_ray.cluster.worker import Builder
from seer_ray.cluster.worker_pool import WorkerPool
from seer_ray.config.errors import ConfigError, JobError
from seer_ray.config.options import ClusterConfig, EngineConfig, ResultsConfig, RunConfig
from seer_ray.engine.request import Progress, Request

pytestmark = pytest.mark.usefixtures("local_ray")


class Job:
    """A pool and a assignments, without anything around them."""

    def __init__(self, requests: list[Request], build: Builder, workers: int = 2, **cluster: object) -> None:
        self.requests = {request.id: request for request in requests}
        options = {"report_interval": 0.05, "stuck_timeout": 60.0, **cluster}
        config = RunConfig(cluster=ClusterConfig(**options), engine=EngineConfig(max_batch=2))  # type: ignore[arg-type]
        config.results = ResultsConfig(folder=str(cluster.get("address")))
        self.notes: list[str] = []
        self.pool = WorkerPool(config, Placement(workers, 0.5, 0), build)
        self.queue = RunQueue("job", [requests], config.cluster.max_attempts)
        self.dispatcher = Dispatcher([self.queue], self.pool, self.notes.append)
        self.outcomes: dict[str, Outcome] = {}

    def poll(self) -> None:
        for _, outcome in self.dispatcher.poll(0.2):
            assert outcome.completion.request.id not in self.outcomes
            self.outcomes[outcome.completion.request.id] = outcome

    def run(self) -> dict[str, Outcome]:
        try:
            while self.queue.unfinished:
                self.poll()
        finally:
            self.pool.close()
        assert set(self.outcomes) == set(self.requests)
        return self.outcomes

    def right(self) -> set[str]:
        """Requests that got exactly their tokens."""
        return {
            id
            for id, outcome in self.outcomes.items()
            if list(outcome.completion.tokens) == expected_tokens(self.requests[id])
        }

    def pid(self, place: int) -> int:
        return ray.get(self.pool._slots[place].actor.__ray_call__.remote(lambda _: os.getpid()))


def some(problems: int, samples: int = 1, length: int = 20) -> list[Request]:
    return [make_request(f"p{p}", s, length) for p in range(problems) for s in range(samples)]


def test_two_workers_do_all_requests() -> None:
    job = Job(some(6, samples=2), fake_engine.build_fake)
    job.pool.start(2)
    while job.pool.ready < 2:
        for event in job.pool.poll(0.2):
            job.dispatcher.take(event, [])
    outcomes = job.run()
    assert job.right() == set(job.requests)
    assert {outcome.worker for outcome in outcomes.values()} == {"w0", "w1"}
    assert {outcome.attempts for outcome in outcomes.values()} == {1}
    assert job.dispatcher.stats()["new_tokens"] == 12 * 20
    assert job.notes == []


def test_a_killed_worker_costs_no_request_and_no_reported_token() -> None:
    job = Job(some(6, samples=2, length=60), fake_engine.build_slow)
    while not all(job.queue.assignments.held(worker) for worker in ("w0", "w1")) or job.queue.new_tokens < 20:
        job.poll()
    os.kill(job.pid(0), signal.SIGKILL)
    job.run()
    assert job.right() == set(job.requests)
    assert "worker w0 died" in job.notes[0]
    worked = job.dispatcher.stats()["new_tokens"]
    assert worked <= 12 * 60 + 40, "chains were begun again from nothing"
    assert max(outcome.attempts for outcome in job.outcomes.values()) == 2


def test_a_stuck_worker_is_replaced() -> None:
    requests = [make_request("hang"), *some(3)]
    job = Job(requests, fake_engine.build_fake, workers=1, stuck_timeout=1.0, max_attempts=1)
    job.run()
    assert job.right() == {"p0/0", "p1/0", "p2/0"}, "also the one that was in it with the other"
    assert "silent for 1 s (cluster.stuck_timeout)" in str(job.outcomes["hang/0"].completion.error)


@pytest.mark.parametrize(("problem", "reason"), [("kill", ""), ("raise", "IndexError: no page for raise")])
def test_a_request_that_kills_workers_becomes_an_error_row(problem: str, reason: str) -> None:
    requests = [make_request(problem), *some(5)]
    job = Job(requests, fake_engine.build_fake, workers=1, max_attempts=2)
    job.run()
    assert job.right() == {request.id for request in requests[1:]}
    bad = job.outcomes[f"{problem}/0"]
    assert bad.completion.finish_reason == "error"
    assert "its worker died 2 times in a row" in str(bad.completion.error)
    assert reason in str(bad.completion.error)
    assert "\n" not in str(bad.completion.error)
    assert list(bad.completion.tokens) == expected_tokens(requests[0])[: len(bad.completion.tokens)]


def test_a_continued_request_gets_the_rest() -> None:
    whole = expected_tokens(make_request("p", length=20))
    begun = make_request("p", length=20, progress=Progress(tuple(whole[:15])))
    job = Job([begun], fake_engine.build_fake, workers=1)
    assert list(job.run()["p/0"].completion.tokens) == whole
    assert job.queue.new_tokens == 5


def test_a_start_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seer_ray.cluster.slot.BACKOFF", 0.01)
    job = Job(some(4), fake_engine.build_broken_at_first, workers=1)
    job.pool._config.results.folder = str(tmp_path / "first")
    job.run()
    assert job.right() == set(job.requests)
    assert ["it is started again" in note for note in job.notes] == [True]


def test_when_no_worker_starts_the_job_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seer_ray.cluster.slot.BACKOFF", 0.01)
    job = Job(some(2), fake_engine.build_broken, workers=1)
    with pytest.raises(JobError, match=r"^no worker could be started: OSError: weights are torn$"):
        job.run()
    assert len(job.notes) == 3


def test_a_start_that_takes_too_long_is_a_failure() -> None:
    job = Job(some(1), fake_engine.build_hanging, workers=1, startup_timeout=0.5, max_failed_starts=1)
    with pytest.raises(JobError, match=r"not up after 0.5 s \(cluster.startup_timeout\)"):
        job.run()


def test_a_bad_option_that_only_a_worker_can_see_is_a_bad_option() -> None:
    job = Job(some(1), fake_engine.build_misconfigured, workers=1)
    with pytest.raises(ConfigError, match=r"^model.gates=nothing: no gates there$"):
        job.run()


def test_a_worker_that_crashes_is_told_of_with_its_last_words() -> None:
    job = Job([make_request("crash"), *some(2)], fake_engine.build_fake, workers=1, max_attempts=1)
    job.run()
    assert "Fatal Python error: Segmentation fault" in str(job.outcomes["crash/0"].completion.error)


@pytest.mark.parametrize("hangs", [False, True])
def test_ray_is_not_left_while_it_ends_a_worker(hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the cluster is gone: it would crash the process, which then could not say why it ends."""
    monkeypatch.setattr("seer_ray.cluster.worker_pool.CLOSING", 0.01 if hangs else 60.0)
    answered = threading.Event()
    ending = threading.Thread(target=answered.wait, daemon=True)
    watch = ClusterWatch({})
    watch.lost = "the head is gone"
    pool = WorkerPool(RunConfig(), Placement(1, 1, 0), fake_engine.build_fake, watch)
    pool._slots[0].actors = SimpleNamespace(kill=lambda: ending.start() or ending)  # type: ignore[assignment,func-returns-value]
    if not hangs:
        threading.Timer(0.2, answered.set).start()
    pool.close()
    assert ending.is_alive() == watch.stuck == hangs
    answered.set()
