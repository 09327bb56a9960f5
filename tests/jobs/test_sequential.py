"""A run that samples problems until they are decided: with real Ray, killed and gone on with."""

from __future__ import annotations

from typing import Any

import fake_engine
import pytest
from jobs.conftest import MakeConfig
from jobs.test_run import Recorder, Stopper, rows, run, said

from seer_ray.analysis.sequential import decided
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import RunConfig

pytestmark = pytest.mark.usefixtures("local_ray")

IDS, SAMPLES, EVERY = "abcdef", 12, 2


@pytest.fixture
def make(letters: MakeConfig) -> Any:
    def made(name: str, sequential: bool) -> RunConfig:
        config: RunConfig = letters(ids=IDS, tokens=24, name=name)
        config.samples, config.task.grader = SAMPLES, "digest_grader:vote"
        config.sequential.enabled, config.sequential.every = sequential, EVERY
        config.results.part_interval = 0.0
        return config

    return made


def test_rows_that_are_not_needed_are_not_missing(make: Any) -> None:
    whole = {(row["problem_id"], row["sample"]): row for row in _rows(make("whole", False))}
    wanted = set()
    for problem in IDS:
        answers = [whole[problem, number]["extracted_answer"] for number in range(SAMPLES)]
        looks = range(EVERY, SAMPLES + 1, EVERY)
        last = next((n for n in looks if decided(answers[:n], SAMPLES, 0.05)), SAMPLES)
        wanted |= {(problem, number) for number in range(last)}
    assert len(IDS) * EVERY < len(wanted) < len(whole), "the case shows something"

    config = make("job", True)
    with pytest.raises(Interrupted):
        run(config, Stopper(done=len(wanted) // 4), fake_engine.build_slow)
    assert 0 < len(rows(config)) < len(wanted)
    summary = run(config, Recorder())
    found = {(row["problem_id"], row["sample"]): row for row in rows(config)}
    assert found.keys() == wanted
    for key, row in found.items():
        assert row["token_ids"] == whole[key]["token_ids"] and row["correct"] == whole[key]["correct"]
    saved = len(whole) - len(wanted)
    assert summary.rows == len(wanted) and summary.metrics["sequential/saved_samples"] == saved
    assert summary.metrics["sequential/saved_tokens"] == 24 * saved
    first = [row["correct"] for (_, number), row in whole.items() if number < EVERY]
    assert summary.metrics["accuracy/avg"] == pytest.approx(sum(first) / len(first))
    status = said(config, "status.json")
    assert (status["total"], status["done"], status["saved"]) == (len(wanted), len(wanted), saved)
    # Once more: nothing is left to do.
    again = run(config, Recorder())
    assert again.rows == again.resumed == len(wanted) and again.metrics == summary.metrics


def _rows(config: RunConfig) -> list[dict[str, Any]]:
    run(config, Recorder())
    return rows(config)
