"""Racing: what is decided from which rows, and a sweep in which one setting is plainly worse than dense."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from digest_grader import digest
from jobs.conftest import MakeConfig
from jobs.sweeps import Recorder, Stopper, folder, rows, run, states
from results.sample import row

from seer_ray.analysis.comparison import compare
from seer_ray.analysis.racing import Decision, Verdict
from seer_ray.analysis.recommend import Keeps
from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import RacingConfig, RunConfig, SweepConfig
from seer_ray.jobs import run as run_job
from seer_ray.results import schema
from seer_ray.results.folder import RunFolder
from seer_ray.sweeps.points import Point
from seer_ray.sweeps.race import Race
from seer_ray.tasks.problem import Problem

SIZE, LEAST = 4, 8
SETTINGS = RacingConfig(enabled=True, least=LEAST)


class Session:
    """Stands for ``Session``, its folder and its queue: 40 problems, one sample, the rows that were given."""

    config = RunConfig()
    failure: str | None = None

    def __init__(self, name: str, right: Mapping[int, bool] | bool, queued: int = 40) -> None:
        self.name, self.queued = name, queued
        self.problems = [Problem(f"p{n:02}", (), "") for n in range(40)]
        self._right = right
        self.rows: list[int] = []

    @property
    def folder(self) -> Session:
        return self

    @property
    def queue(self) -> Session:
        return self

    def committed(self) -> set[tuple[str, int]]:
        return {(f"p{n:02}", 0) for n in self.rows}

    def read(self, columns: Sequence[str]) -> pa.Table:
        right = self._right
        correct = {n: right if isinstance(right, bool) else right[n] for n in self.rows}
        return schema.table([row(f"p{n:02}", correct=correct[n]) for n in self.rows]).select(columns)

    def stop(self) -> None:
        self.queued = 0


def race(*sessions: Session, stopped: Sequence[str] = (), points: Sequence[str] = ()) -> Race:
    """Of points that are all compared with the first, dense one."""
    names = points or [session.name for session in sessions]
    made = [Point(name, RunConfig(), {}, "dense") for name in names]
    return Race(SETTINGS, made, sessions, SIZE, stopped)  # type: ignore[arg-type]


def feed(session: Session, order: Sequence[int], to: int) -> None:
    session.rows = list(order[:to])


@pytest.mark.parametrize("seed", range(5))
def test_the_same_is_decided_in_whatever_order_rows_come_and_whenever_it_is_looked_at(seed: int) -> None:
    chance = random.Random(seed)
    right = {n: n % 3 == 0 for n in range(40)}
    expected: Decision | None = None
    for _ in range(8):
        dense, bad = Session("dense", True), Session("bad", right)
        orders = [sorted(range(40), key=lambda n: n + chance.uniform(0, 10)) for _ in range(2)]
        running, found = race(dense, bad), dict[str, Decision | None]()
        for to in (*sorted(chance.sample(range(1, 40), 6)), 40):
            feed(dense, orders[0], min(40, to + chance.randrange(8)))
            feed(bad, orders[1], to)
            if chance.random() < 0.3:
                running = race(dense, bad)  # killed and resumed
            if found := running.run():
                break
        decision = found["bad"]
        assert decision is not None and decision.verdict is Verdict.WORSE
        assert decision.problems % SIZE == 0 and LEAST <= decision.problems < 40
        assert expected in (None, decision)
        expected = decision


def test_problems_that_end_early_wait_for_their_round() -> None:
    dense, bad = Session("dense", True), Session("bad", False)
    feed(dense, range(40), 40)
    bad.rows = [n for n in range(40) if n != 5]
    assert race(dense, bad).run() == {}, "one of the second round is not there yet"
    bad.rows = list(range(40))
    assert race(dense, bad).run()["bad"] is not None


def test_a_baseline_is_stopped_with_the_last_that_needs_it() -> None:
    dense, bad, worse = Session("dense", True), Session("bad", False), Session("worse", False)
    running = race(dense, bad, worse)
    feed(dense, range(40), 20)
    feed(bad, range(40), 20)
    assert set(running.run()) == {"bad"} and dense.queued
    feed(worse, range(40), 20)
    assert running.run()["dense"] is None and not dense.queued
    assert running.run() == {}

    dense = Session("dense", True)
    worse.failure, worse.queued = "no gates", 0
    assert set(race(dense, worse, bad, stopped=["bad"]).run()) == {"dense"}, "as after a kill in between"


def test_a_point_that_came_to_its_end_keeps_the_baseline_going() -> None:
    dense, good, bad = Session("dense", True), Session("good", True, queued=0), Session("bad", False)
    feed(dense, range(40), 20)
    feed(good, range(40), 40)
    feed(bad, range(40), 20)
    assert set(race(dense, good, bad).run()) == {"bad"} and dense.queued


def test_every_point_of_the_sweep_has_its_share_of_the_error_rate() -> None:
    dense, bad = Session("dense", True), Session("bad", False)
    feed(dense, range(40), 12)
    feed(bad, range(40), 12)
    assert race(dense, bad).run(), "12 problems lost of 12, one setting"
    bad = Session("bad", False)
    feed(bad, range(40), 12)
    others = [f"other{n}" for n in range(10**4)]
    assert not race(dense, bad, points=["dense", "bad", *others]).run()


# -- a sweep -------------------------------------------------------------------------------------------

PROBLEMS = 32
OVERRIDES = (
    "selector=quest,window",
    "selector.budget=32,1024",
    "sweep.racing.enabled=true",
    f"sweep.racing.every={SIZE}",
    f"sweep.racing.least={LEAST}",
)


@pytest.fixture
def graded(letters: MakeConfig, tmp_path: Path) -> SweepConfig:
    """A random model, decoded greedily by the real engine, on problems that are right if the chain is the one
    of dense attention: known from a run without a reference."""
    config = letters(SweepConfig, tokens=12, name="raced")
    config.samples, config.sampling.temperature, config.results.part_interval = 1, 0.0, 0.0
    config.engine.exact, config.engine.block_size, config.engine.max_batch = True, 16, SIZE
    data = Path(str(config.task.data))
    questions = [f"{'Which letters come next? ' * 4}{n * n:o}" for n in range(PROBLEMS)]
    asked = [{"id": f"p{n}", "question": question} for n, question in enumerate(questions)]
    data.write_text("\n".join(map(json.dumps, asked)))
    own = {name: value for name, value in vars(config).items() if name != "sweep"}
    config.task.grader = "none"
    run_job.main(RunConfig(**{**own, "name": "reference"}))
    found = RunFolder.view(str(tmp_path / "runs" / "reference")).read().to_pylist()
    chains = {row["problem_id"]: digest(row["completion"]) for row in found}
    data.write_text("\n".join(json.dumps({**row, "answer": chains[row["id"]]}) for row in asked))
    config.task.grader = "digest_grader:digest"
    return config


@pytest.fixture
def paced() -> Builder:
    """Builds engines that leave time to look between rounds. Made here, so that it travels to workers."""

    def build(config: RunConfig) -> Any:
        engine = build_engine(config)
        step = engine.step

        def slowly(tell: bool = True) -> Any:
            time.sleep(0.02)
            return step(tell)

        engine.step = slowly  # type: ignore[method-assign]
        return engine

    return build


def decisions(base: SweepConfig) -> dict[str, Any]:
    return {point["slug"]: (point["decision"], point["error"]) for point in folder(base).points}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(900)
def test_what_is_plainly_worse_is_stopped_and_a_resumed_sweep_decides_the_same(
    graded: SweepConfig, paced: Builder, long: bool
) -> None:
    graded.results.report = True
    recorder = Recorder()
    summary = run(graded, *OVERRIDES, reporter=recorder, build=paced)
    assert summary.failed == [], recorder.notes
    stopped = {slug for slug, state in states(graded).items() if state == "stopped early"}
    assert "window-32" in stopped and "dense" not in stopped
    assert states(graded)["quest-1024"] == states(graded)["window-1024"] == "done", (
        "a budget ≥ length is dense"
    )
    for slug in ("dense", "quest-1024", "window-1024"):
        assert all(row["correct"] for row in rows(graded, slug)) and len(rows(graded, slug)) == PROBLEMS
    decision, why = decisions(graded)["window-32"]
    assert decision["verdict"] == "stop: worse" and LEAST <= decision["problems"] < PROBLEMS
    assert f"window-32 is sampled no more: {why}" in recorder.notes
    left = sum(PROBLEMS - len(rows(graded, slug)) for slug in stopped)
    points = "1 point" if len(stopped) == 1 else f"{len(stopped)} points"
    assert left > 0 and summary.saved is not None
    assert summary.saved.startswith(f"racing stopped {points} early and saved {left} chains, about ")
    judged = {one.setting.folder.rpartition("/")[2]: one for one in compare([folder(graded).uri]).runs}
    worse = judged["window-32"].assessment
    assert worse is not None and (worse.keeps, worse.why) == (Keeps.NO, f"racing stopped it: {why}")
    page = Path(folder(graded).uri, "report.html").read_text()
    assert why.replace("'", "&#x27;") in page

    again = run(graded, *OVERRIDES, build=None)
    assert (again.saved, again.recommendation) == (summary.saved, summary.recommendation)

    known, graded.name = decisions(graded), "resumed"
    for done in (10, 45, 100) if long else (45,):
        with pytest.raises(Interrupted):
            run(graded, *OVERRIDES, reporter=Stopper(done), build=paced)
    resumed = run(graded, *OVERRIDES, build=paced)
    assert decisions(graded) == known
    assert resumed.saved is not None
