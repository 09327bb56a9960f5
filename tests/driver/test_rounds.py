"""What is left of a run, and the prompts that it needs."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_engine import make_request

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.driver import rendered
from seer_ray.driver.rendered import Prompts
from seer_ray.driver.rounds import AHEAD, STEP, rounds_of
from seer_ray.results.chain import Chain
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.asked import Asked
from seer_ray.tasks.problem import Problem, Prompt

CLOCK = datetime.fromtimestamp(1e9, UTC)


def problems(count: int) -> list[Problem]:
    return [Problem(f"p{n}", (), None, asked=Asked(samples=3) if n == 2 else Asked()) for n in range(count)]


def made(place: int, problem: Problem, sample: int, left: int) -> Any:
    return make_request(problem.id, sample)


def test_what_was_begun_comes_first_and_what_is_done_not_at_all() -> None:
    done = {("p0", 0), ("p0", 1), ("p3", 0)}
    chains = {
        "p3/1": Chain(array("i", [1])),
        "p1/1": Chain(array("i", [1, 2])),
        "p0/0": Chain(array("i", [9])),
    }
    first, second = rounds_of(problems(5), 2, 4, done, chains, made)
    assert [request.id for request in first if request] == ["p1/1", "p3/1", "p1/0", "p2/0", "p2/1", "p2/2"]
    assert [request.id for request in second if request] == ["p4/0", "p4/1"]
    assert (len(first), len(second)) == (6, 2)


def test_problems_are_told_of_before_their_requests_are_made() -> None:
    order: list[Any] = []

    def make(place: int, problem: Problem, sample: int, left: int) -> Any:
        order.append((place, sample, left))
        return None

    count = 2 * STEP * (AHEAD + 1)
    done = {("p1", 0), ("p1", 1), ("p3", 1), ("p3", 7), ("unknown", 0)}
    (only,) = rounds_of(problems(count), 2, count, done, {}, make, lambda some: order.append(len(some)))
    assert len(only) == len(list(only)) == 2 * count + 1 - 3
    assert order[: AHEAD + 1] == [STEP] * (AHEAD + 1) and sum(n for n in order if type(n) is int) == count - 1
    requests = [made for made in order if type(made) is tuple]
    assert requests[:6] == [(0, 0, 2), (0, 1, 2), (2, 0, 3), (2, 1, 3), (2, 2, 3), (3, 0, 1)]
    assert requests[-1] == (count - 1, 1, 2)


class Letters:
    """Renders a problem as its id, with something before it."""

    def __init__(self, before: str = "", fingerprint: str = "1") -> None:
        self.before, self.fingerprint = before, fingerprint
        self.rendered: list[str] = []

    def render(self, problem: Problem) -> Prompt:
        self.rendered.append(problem.id)
        return Prompt(problem, self.before + problem.id, (1, 2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(rendered, "BLOCK", 4)
    with RunFolder.open(str(tmp_path / "job"), RunConfig(name="job")) as folder:
        yield folder


def prompts_of(folder: RunFolder, renderer: Letters, begun: bool = True) -> Prompts:
    return Prompts(folder, problems(10), renderer, CLOCK, begun)  # type: ignore[arg-type]


def test_a_prompt_is_kept_until_its_last_row_is_committed(folder: RunFolder) -> None:
    renderer = Letters()
    prompts = prompts_of(folder, renderer, begun=False)
    for _ in range(2):
        assert prompts.open(1, problems(10)[1], rows=2).text == "p1"
    prompts.close("p1")
    assert prompts["p1"].text == "p1"
    prompts.close("p1")
    with pytest.raises(KeyError):
        prompts["p1"]
    assert renderer.rendered == ["p1"]


def test_a_run_goes_on_with_the_prompts_that_it_has_used(folder: RunFolder) -> None:
    """Those of a whole block by one digest; those that were not rendered yet may be others."""
    prompts = prompts_of(folder, Letters(), begun=False)
    for place in range(6):
        prompts.open(place, problems(10)[place], 1)
    prompts.write()
    noted = folder.read_json(rendered.FILE)
    assert list(noted["blocks"]) == ["0"] and list(noted["places"]) == ["4", "5"]
    same = Letters()
    prompts_of(folder, same)
    assert same.rendered == [], "what renders is the same: so are its prompts"
    other = Letters(fingerprint="2")
    prompts_of(folder, other).write()
    assert sorted(other.rendered) == [f"p{place}" for place in range(6)]
    assert folder.read_json(rendered.FILE)["renderer"] == "2"

    class LateChange(Letters):
        def render(self, problem: Problem) -> Prompt:
            self.before = "" if problem.id in ("p0", "p1", "p2", "p4", "p5") else "other "
            return super().render(problem)

    with pytest.raises(ConfigError, match="a prompt of the problems 'p0' to 'p3' is no longer the one"):
        prompts_of(folder, LateChange(fingerprint="3"))
    with pytest.raises(ConfigError, match="the prompt of problem 'p4' and of 1 more is no longer the one"):
        prompts_of(folder, Letters("other ", fingerprint="3"))
    prompts_of(folder, Letters("other ", fingerprint="3"), begun=False)


def test_digests_of_an_earlier_version_are_compared(folder: RunFolder) -> None:
    digests = [Letters().render(problem).digest for problem in problems(10)]
    folder.write_json(rendered.FILE, {"clock": 1e9, "digests": digests})
    prompts_of(folder, Letters()).write()
    noted = folder.read_json(rendered.FILE)
    assert (list(noted["blocks"]), list(noted["places"])) == (["0", "1"], ["8", "9"])
    folder.write_json(rendered.FILE, {"clock": 1e9, "digests": digests})
    with pytest.raises(ConfigError, match="the prompt of problem 'p0' and of 9 more"):
        prompts_of(folder, Letters("other "))
    folder.write_json(rendered.FILE, {"clock": 1e9, "digests": digests[:-1]})
    with pytest.raises(ConfigError, match=r"prompts\.json: torn"):
        prompts_of(folder, Letters())
