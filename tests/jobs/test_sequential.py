"""A run that samples problems until they are decided: with real Ray, killed and gone on with."""

from __future__ import annotations

from typing import Any

import fake_engine
import pytest
from digest_grader import vote
from fake_engine import expected_tokens, make_request
from jobs.conftest import MakeConfig
from jobs.test_run import Recorder, Stopper, rows, run, said
from tiny import tiny_tokenizer

from jobs import sweeps
from seer_ray.analysis.sequential import decided
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.tasks.thinking import ReasoningParser

pytestmark = pytest.mark.usefixtures("local_ray")

IDS, SAMPLES, EVERY, TOKENS = "abcdef", 12, 2, 24


@pytest.fixture
def make(letters: MakeConfig) -> MakeConfig:
    def made(job: type = RunConfig) -> Any:
        config = letters(job, ids=IDS, tokens=TOKENS)
        config.samples, config.task.grader = SAMPLES, "digest_grader:vote"
        config.sequential.enabled, config.sequential.every = True, EVERY
        config.results.part_interval = 0.0
        return config

    return made


def answer(problem: str, sample: int) -> str:
    """What the grader finds in a chain of the fake engine."""
    said = ReasoningParser(tiny_tokenizer()).parse(expected_tokens(make_request(problem, sample, TOKENS)))
    assert said.answer is not None
    return vote(said.answer)


@pytest.fixture(scope="module")
def wanted() -> set[tuple[str, int]]:
    found = set()
    for problem in IDS:
        answers = [answer(problem, number) for number in range(SAMPLES)]
        looks = range(EVERY, SAMPLES + 1, EVERY)
        last = next((n for n in looks if decided(answers[:n], SAMPLES, 0.05)), SAMPLES)
        found |= {(problem, number) for number in range(last)}
    assert len(IDS) * EVERY < len(found) < len(IDS) * SAMPLES, "the case shows something"
    return found


def test_rows_that_are_not_needed_are_not_missing(make: MakeConfig, wanted: set[tuple[str, int]]) -> None:
    config: RunConfig = make()
    with pytest.raises(Interrupted):
        run(config, Stopper(done=len(wanted) // 4), fake_engine.build_slow)
    assert 0 < len(rows(config)) < len(wanted)
    summary = run(config, Recorder())
    found = {(row["problem_id"], row["sample"]): row for row in rows(config)}
    assert found.keys() == wanted
    for (problem, number), row in found.items():
        assert row["extracted_answer"] == answer(problem, number)
    saved = len(IDS) * SAMPLES - len(wanted)
    assert summary.rows == len(wanted) and summary.metrics["sequential/saved_samples"] == saved
    assert summary.metrics["sequential/saved_tokens"] == TOKENS * saved
    first = [row["correct"] for (_, number), row in found.items() if number < EVERY]
    assert summary.metrics["accuracy/avg"] == pytest.approx(sum(first) / len(first))
    status = said(config, "status.json")
    assert (status["total"], status["done"], status["saved"]) == (len(wanted), len(wanted), saved)
    # Once more: nothing is left to do.
    again = run(config, Recorder())
    assert again.rows == again.resumed == len(wanted) and again.metrics == summary.metrics


def test_points_of_a_sweep_decide_for_themselves(make: MakeConfig, wanted: set[tuple[str, int]]) -> None:
    base = make(SweepConfig)
    base.engine.block_size, base.sweep.round = 16, 2
    sweeps.run(base, "selector=quest,window", "selector.budget=32")
    for point in sweeps.folder(base).points:
        rows = {(row["problem_id"], row["sample"]) for row in sweeps.rows(base, point["slug"])}
        assert (rows, point["state"]) == (wanted, "done")
        assert point["rows"] == point["total"] == len(wanted)
    assert set(sweeps.states(base)) == {"dense", "quest-32", "window-32"}
