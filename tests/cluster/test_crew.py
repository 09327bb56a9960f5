"""Lanes that share workers, without Ray: workers are engines in this process, and die when told to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from fake_engine import FakeEngine, expected_tokens, make_request

from seer_ray.cluster.crew import Crew
from seer_ray.cluster.engine_thread import Built, Setting, WorkReport
from seer_ray.cluster.fleet import Event, Lost, Ready, Reported
from seer_ray.cluster.lane import Lane
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine.request import Delta, Request

NAMES = ("dense", "quest", "window")


class Local:
    """Stands for a fleet: every call of ``work`` is answered by the next poll, after some steps."""

    def __init__(self, workers: int, rows: int = 2) -> None:
        self.rows, self.size, self.ready = rows, workers, 0
        self.engines: dict[str, FakeEngine] = {}
        self.settings: dict[str, Setting | None] = {}
        self.calls: list[tuple[str, list[Request], Setting | None]] = []
        self.history: list[tuple[str, str]] = []
        """(worker, request) as they are handed out, the request with its setting's name."""
        self.born = 0
        self.doomed: list[str] = []

    def start(self, wanted: int) -> None: ...

    def poll(self, seconds: float) -> list[Event]:
        events: list[Event] = []
        while len(self.engines) < self.size:
            name = f"w{self.born}"
            self.born += 1
            self.engines[name] = FakeEngine(self.rows)
            events.append(Ready(name, Built(self.rows, "built")))
        self.ready = len(self.engines)
        calls, self.calls = self.calls, []
        for name, new, setting in calls:
            if name in self.doomed:
                self.doomed.remove(name)
                del self.engines[name]
                events.append(Lost(name, "killed"))
            else:
                events.append(Reported(name, self._work(name, new, setting)))
        return events

    def work(self, worker: str, new: Sequence[Request], hungry: bool, setting: Setting | None) -> None:
        assert not any(name == worker for name, _, _ in self.calls)
        assert setting is not None
        self.history += [(worker, f"{setting.selector.name}:{request.id}") for request in new]
        self.calls.append((worker, list(new), setting))

    def _work(self, name: str, new: list[Request], setting: Setting | None) -> WorkReport:
        engine, refused = self.engines[name], None
        if setting is not None and setting != self.settings.get(name):
            try:
                engine.configure(setting.engine, setting.selector)  # fails if it holds other requests
                self.settings[name] = setting
            except ConfigError as error:
                refused, new = str(error), []
        for request in new:
            engine.submit(request)
        deltas: list[Delta] = []
        for _ in range(3):
            deltas += engine.step() if engine.busy else []
        return WorkReport(deltas, engine.room(), engine.busy, engine.stats(), engine.plan.code, refused)


def lane(name: str, problems: int, samples: int = 2, each: int = 1, length: int = 4) -> Lane:
    """Rounds of ``each`` problems."""
    requests = [make_request(f"p{p}", s, length) for p in range(problems) for s in range(samples)]
    size = each * samples
    rounds = [requests[first : first + size] for first in range(0, len(requests), size)]
    return Lane(name, rounds, 3, None, Setting(EngineConfig(), SelectorConfig(name=name)))


def run(crew: Crew, chance: random.Random | None = None) -> list[tuple[str, Any]]:
    done: list[tuple[str, Any]] = []
    for _ in range(5000):
        if not crew.unfinished:
            return done
        done += [(lane.name, outcome.completion) for lane, outcome in crew.poll(0.0)]
        fleet: Any = crew.fleet
        if chance and chance.random() < 0.05 and fleet.calls:
            fleet.doomed.append(chance.choice(fleet.calls)[0])
    raise AssertionError("does not end")


def crew_of(lanes: Sequence[Lane], workers: int = 1, rows: int = 2) -> tuple[Crew, Local]:
    fleet = Local(workers, rows)
    return Crew(lanes, fleet, lambda _: None), fleet  # type: ignore[arg-type]


def test_lanes_take_turns_by_rounds() -> None:
    crew, fleet = crew_of([lane(name, problems=3) for name in NAMES])
    run(crew)
    order = [text.partition("/")[0] for _, text in fleet.history]
    there, back = ["dense", "quest", "window"], ["window", "quest", "dense"]
    wanted = [f"{name}:p{p}" for p, names in enumerate((there, back, there)) for name in names]
    assert order == [text for text in wanted for _ in range(2)]


def test_a_half_finished_sweep_compares_like_with_like() -> None:
    lanes = [lane(name, problems=12, each=2) for name in NAMES]
    crew, _ = crew_of(lanes, workers=2)
    done = dict.fromkeys(NAMES, 0)
    while crew.unfinished:
        for found, _ in crew.poll(0.0):
            done[found.name] += 1
        # Two rounds of two problems with two samples: the one that ends, and the one that begins beside it.
        assert max(done.values()) - min(done.values()) <= 2 * 4
    assert set(done.values()) == {24}


@pytest.mark.parametrize("seed", range(8))
def test_every_request_once_whoever_dies(seed: int) -> None:
    chance = random.Random(seed)
    lanes = [lane(name, chance.randint(1, 9), each=chance.randint(1, 3)) for name in NAMES]
    total = sum(found.unfinished for found in lanes)
    crew, _ = crew_of(lanes, workers=chance.randint(1, 4), rows=chance.randint(1, 4))
    done = run(crew, chance)
    assert len(done) == total
    assert set(Counter((name, c.request.id) for name, c in done).values()) == {1}
    for _, completion in done:
        if completion.finish_reason != "error":
            assert completion.tokens == expected_tokens(completion.request)


def test_what_engines_did_goes_to_the_lane_that_they_did_it_for() -> None:
    lanes = [lane(name, problems=2 * (n + 1)) for n, name in enumerate(NAMES)]
    crew, _ = crew_of(lanes, workers=2)
    run(crew)
    assert [found.stats["new_tokens"] for found in lanes] == [16, 32, 48]
    assert [found.new_tokens for found in lanes] == [16, 32, 48]
    assert [found.plan for found in lanes] == ["fake-dense2048", "fake-quest2048", "fake-window2048"]


def test_a_setting_that_is_refused_ends_its_lane_alone() -> None:
    bad = lane("seer", problems=4)
    crew, _ = crew_of([lane("dense", 4), bad, lane("quest", 4)], workers=2)
    done = run(crew)
    assert bad.failure == "model.gates: none given"
    assert Counter(name for name, _ in done) == {"dense": 8, "quest": 8}


def test_a_lane_that_is_stopped_finishes_what_is_begun() -> None:
    lanes = [lane("dense", 4), lane("quest", 4)]
    crew, _ = crew_of(lanes)
    while not lanes[1].running:
        crew.poll(0.0)
    begun = lanes[1].running
    lanes[1].stop()
    done = Counter(name for name, _ in run(crew))
    assert done["quest"] == begun < 8


def test_the_last_lane_need_not_wait_for_its_own_tail() -> None:
    """With nobody else left, the next rounds begin while the longest chain of this one still runs."""
    found = lane("quest", problems=6, samples=1, length=40)
    crew, fleet = crew_of([found], rows=4)
    for _ in range(3):
        crew.poll(0.0)
    assert len(fleet.history) == 4
