"""Which samples are taken: by those before them, whoever is done first."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from fake_engine import make_request

from seer_ray.analysis.sequential import Saved, decided
from seer_ray.config.compose import compose
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SequentialConfig
from seer_ray.driver.sequential import SequentialSamples
from seer_ray.engine.request import Request
from seer_ray.sweeps.points import expand

SAMPLES = 16
SETTINGS = SequentialConfig(enabled=True, error=0.05, every=3)
Key = tuple[str, int]


def answer(problem: str, sample: int) -> str | None:
    draw = random.Random(f"{problem}/{sample}")
    return draw.choices(["a", "b", None], [1 + 3 * (ord(problem) % 4), 2, 0.5])[0]


def row(problem: str, sample: int) -> dict[str, Any]:
    said = answer(problem, sample)
    error = "it failed" if problem == "d" and sample == 1 else None
    return {
        "problem_id": problem,
        "sample": sample,
        "extracted_answer": said,
        "error": error,
        "completion_tokens": 10 + sample,
    }


def requests(done: Mapping[Key, Any]) -> list[Request]:
    keys = [(problem, sample) for problem in "abcdefgh" for sample in range(SAMPLES)]
    return [make_request(*key) for key in keys if key not in done]


def session(done: dict[Key, dict[str, Any]], order: random.Random, rows: int) -> SequentialSamples:
    """Adds so many rows, each the next of those that are to be sampled in some order."""
    samples = SequentialSamples(SETTINGS, SAMPLES)
    for one in done.values():
        assert samples.add(one) == []
    open_ones = samples.hold(requests(done))
    while open_ones and rows:
        request = open_ones.pop(order.randrange(len(open_ones)))
        done[request.problem, request.sample] = row(request.problem, request.sample)
        open_ones += samples.add(done[request.problem, request.sample])
        rows -= 1
    assert not rows or samples.held == 0
    return samples


def expected() -> set[Key]:
    """By the definition: looks at the first 3, 6, 9 samples and so on."""
    wanted = set()
    for problem in "abcdefgh":
        rows = [row(problem, number) for number in range(SAMPLES)]
        answers = [None if one["error"] else one["extracted_answer"] for one in rows]
        looks = [*range(3, SAMPLES, 3), SAMPLES]
        last = next((n for n in looks if n == SAMPLES or decided(answers[:n], SAMPLES, 0.05)), SAMPLES)
        wanted |= {(problem, number) for number in range(last)}
    return wanted


@pytest.mark.parametrize("seed", range(5))
def test_whoever_is_first_and_whatever_was_there_before(seed: int) -> None:
    order, done = random.Random(seed), dict[Key, dict[str, Any]]()
    for rows in (order.randrange(20), order.randrange(30), 1000):
        samples = session(done, order, rows)
    assert done.keys() == expected()
    lengths = [len([key for key in done if key[0] == problem]) for problem in "abcdefgh"]
    saved = [SAMPLES - length for length in lengths if length < SAMPLES]
    assert len(set(lengths)) > 2, "the case shows something"
    tokens = sum(left * sum(range(10, 10 + SAMPLES - left)) // (SAMPLES - left) for left in saved)
    assert samples.saved == Saved(len(saved), sum(saved), tokens)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["samples=4"], r"sequential.every=4: must be below samples=4"),
        (["samples=8", "task.grader=none"], "finds no answers"),
    ],
)
def test_what_cannot_be_decided_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["sequential.enabled=true", *overrides])


def test_racing_wants_all_samples() -> None:
    given = ["sequential.enabled=true", "samples=8", "selector=quest,window", "sweep.racing.enabled=true"]
    with pytest.raises(ConfigError, match=r"sequential.enabled=true: sweep.racing.enabled"):
        expand(given)
