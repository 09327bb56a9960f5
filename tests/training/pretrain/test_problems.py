"""Batches of problems: functions of their arguments, targets in the right places."""

from __future__ import annotations

import pytest
import torch
from training.small import small

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import GeneratorConfig
from seer_ray.config.training import ProblemsConfig
from seer_ray.tasks.generators import generate
from seer_ray.training.pretrain.batch import NO_TARGET, Batch
from seer_ray.training.pretrain.problems import (
    TRAINING_SEEDS,
    Problems,
    check_curriculum,
    held_out,
    length,
    longest,
    pack,
)
from seer_ray.training.pretrain.tokenizer import make_tokenizer

TOKENIZER = make_tokenizer(512)


def texts(batch: Batch) -> list[str]:
    return [TOKENIZER.decode(part) for part in batch.tokens.split(batch.documents.lengths)]


def test_a_batch_is_a_function_of_seed_and_step():
    def make(step: int, seed: int = 0) -> Batch:
        return Problems(small(f"train.seed={seed}"), TOKENIZER).batch(step, 0, 1)

    assert torch.equal(make(3).tokens, make(3).tokens)
    assert not torch.equal(make(3).tokens, make(4).tokens[: len(make(3).tokens)])
    assert set(texts(make(3))).isdisjoint(texts(make(3, seed=1)))


def test_ranks_share_one_batch():
    config = small("train.batch_tokens=2000")
    whole = texts(Problems(config, TOKENIZER).batch(5, 0, 1))
    shares = [texts(Problems(config, TOKENIZER).batch(5, rank, 2)) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) > 1
    assert [text for pair in zip(*shares, strict=True) for text in pair] == whole[: 2 * len(shares[0])]
    assert len(whole) - 2 * len(shares[0]) <= 1


def test_problems_of_a_step_are_equally_long_and_fill_the_batch():
    config = small("train.batch_tokens=3000")
    for step in range(6):
        batch = Problems(config, TOKENIZER).batch(step, 0, 1)
        assert batch.documents.uniform
        assert 3000 - batch.documents.lengths[0] < len(batch.tokens) <= 3000


def test_mixed_lengths_in_one_batch_and_ranks_share_it():
    config = small(
        "train.batch_tokens=3000", "data={start: 3, end: 20, growth: 0, shortest: 0.1, mixed: true}"
    )
    problems = Problems(config, TOKENIZER)
    whole = problems.batch(2, 0, 1)
    assert len(set(whole.documents.lengths)) > 3 and 2000 < len(whole.tokens) <= 3000
    assert torch.equal(problems.batch(2, 0, 1).tokens, whole.tokens) and 2 < whole.steps < 20
    shares = [problems.batch(2, rank, 2) for rank in (0, 1)]
    assert len(shares[0].documents.lengths) == len(shares[1].documents.lengths)
    pairs = zip(texts(shares[0]), texts(shares[1]), strict=True)
    assert [text for pair in pairs for text in pair] == texts(whole)[: 2 * len(texts(shares[0]))]


@pytest.mark.parametrize("name", ["program", "registers", "lookup"])
@pytest.mark.parametrize("targets", ["solution", "all"])
def test_every_target_is_the_next_token_of_its_own_document(name, targets):
    problems = [generate(GeneratorConfig(name, steps), steps) for steps in (3, 5, 4)]
    batch = pack(problems, TOKENIZER, targets)
    lengths = batch.documents.lengths
    parts = zip(problems, batch.tokens.split(lengths), batch.targets.split(lengths), strict=True)
    for problem, tokens, wanted in parts:
        known = wanted != NO_TARGET
        assert torch.equal(wanted[:-1][known[:-1]], tokens[1:][known[:-1]]) and not known[-1]
        learned = TOKENIZER.decode(wanted[known], skip_special_tokens=True)
        assert learned.endswith(problem.solution)
        assert (learned == problem.solution) == (targets == "solution")
        assert (int(known.sum()) == len(tokens) - 1) == (targets == "all")


def test_training_does_not_see_what_runs_ask():
    config = small()
    asked = {problem.question for steps in range(2, 7) for problem in held_out(config.data, steps, 20)}
    first = held_out(config.data, 5, 3)[2]
    assert first == generate(GeneratorConfig("program", 5), 2, seed=0)  # as a run draws it
    seen = "".join(text for step in range(6) for text in texts(Problems(config, TOKENIZER).batch(step, 0, 1)))
    assert not any(question in seen for question in asked)
    assert TRAINING_SEEDS > 2**31


def test_the_curriculum_is_a_function_of_the_step():
    config = ProblemsConfig(start=10, end=160, growth=0.5, shortest=0.4)
    grown = [longest(step, 100, config) for step in range(100)]
    assert grown[0] == 10 and grown[25] == pytest.approx(40) and set(grown[50:]) == {160}
    drawn = [length(step, 100, 0, config) for step in range(100)]
    assert drawn == [length(step, 100, 0, config) for step in range(100)]
    assert drawn != [length(step, 100, 1, config) for step in range(100)]
    assert all(0.4 * most - 1 <= n <= most + 1 for n, most in zip(drawn, grown, strict=True))
    late = sorted(length(step, 100, 0, config) for step in range(50, 1050))
    assert late[0] < 70 and late[-1] > 155 and 105 < late[500] < 119  # even between 64 and 160
    assert longest(0, 100, ProblemsConfig(start=5, end=9, growth=0.0)) == 9
    rested = [
        longest(step, 100, ProblemsConfig(start=5, end=50, rest=0.3, growth=0.5)) for step in range(100)
    ]
    assert rested[30] == 5 < rested[31] and rested[79] < rested[80] == 50


def test_a_curriculum_that_shrinks_or_does_not_end_is_refused():
    with pytest.raises(ConfigError, match=r"data.rest=0.6: must be at most 0.4"):
        check_curriculum(ProblemsConfig(rest=0.6, growth=0.6))
    with pytest.raises(ConfigError, match=r"^data\.end=5: must be at least data\.start=8$"):
        check_curriculum(ProblemsConfig(start=8, end=5))
