"""Sampling: the distribution is that of transformers, the noise a function of chain, position and token."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from seer_ray.engine.request import Request, SamplingParams
from seer_ray.engine.sampler import Parameters, sample
from seer_ray.engine.sequence import Sequence, noise_key
from seer_ray.kernels.draw import NUCLEUS, SamplingTensors, candidates, everything, gumbel, uniform

VOCABULARY = 3 * NUCLEUS[-1]
GREEDY = SamplingParams(max_new_tokens=1000)


def chain(params: SamplingParams, number: int = 0, position: int = 0, seed: int = 0) -> Sequence:
    """A sequence whose next token is at ``position``."""
    sequence = Sequence(Request(str(number), (1, 2, 3), params, seed, "problem", number))
    sequence.tokens += [number % 7 + n % 5 for n in range(position)]
    return sequence


def logits(rows: int, spread: float, seed: int = 0) -> torch.Tensor:
    """A small spread needs the whole vocabulary for top-p, a large one only its best tokens."""
    return spread * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def distribution(x: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Probability of every token."""
    made = Parameters(1, VOCABULARY).of([chain(params)], [0])
    sampling = SamplingTensors(*(torch.from_numpy(row).expand(len(x)) for part in made for row in part))
    if not sampling.ranked.any():
        values, ids = everything(x, sampling)
        return torch.zeros_like(x).scatter_add(1, ids, torch.softmax(values, dim=-1))
    found, needed = torch.zeros_like(x), torch.ones(len(x), dtype=torch.bool)
    for width in (*NUCLEUS, VOCABULARY):
        values, ids, short = candidates(x, sampling, width)
        of_width = torch.zeros_like(x).scatter_add(1, ids, torch.softmax(values, dim=-1))
        found, needed = torch.where(needed.unsqueeze(1), of_width, found), needed & short
    assert not needed.any()
    return found


@pytest.mark.parametrize("spread", [0.5, 2.0, 6.0])
@pytest.mark.parametrize(
    "params",
    [
        replace(GREEDY, temperature=0.7),
        replace(GREEDY, temperature=1.3, top_k=50),
        replace(GREEDY, temperature=1.0, top_p=0.9),
        replace(GREEDY, temperature=0.6, top_p=0.95, top_k=20),
        replace(GREEDY, temperature=1.0, min_p=0.05),
        replace(GREEDY, temperature=0.8, top_p=0.99, top_k=2000, min_p=0.01),
        replace(GREEDY, temperature=1.0, top_k=10 * VOCABULARY),
    ],
    ids=str,
)
def test_distribution_is_that_of_transformers(params: SamplingParams, spread: float) -> None:
    x = logits(8, spread)
    processors = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    unused: Any = torch.zeros(8, 1, dtype=torch.int64)
    expected = torch.softmax(processors(unused, x), dim=-1)
    found = distribution(x, params)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    params = replace(GREEDY, repetition_penalty=penalty)
    sequences = [chain(params, number, position=20) for number in range(40)]
    x = logits(40, 0.1)
    x[:, :12] += torch.linspace(-0.5, 0.5, 12)  # tokens that were seen are near the top
    seen: Any = torch.tensor([sequence.tokens for sequence in sequences])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(seen, x.clone()).argmax(-1).tolist()
    assert sample(x.clone(), sequences) == expected
    assert expected != x.argmax(-1).tolist()


@pytest.mark.parametrize(
    "params",
    [replace(GREEDY, temperature=1.0, **only) for only in ({"top_p": 0.0}, {"top_k": 1}, {"min_p": 1.0})],
    ids=str,
)
def test_the_narrowest_settings_keep_the_best_token(params: SamplingParams) -> None:
    x = logits(20, 1.0)
    assert torch.equal(distribution(x, params).argmax(-1), x.argmax(-1))
    assert sample(x, [chain(params, number) for number in range(20)]) == x.argmax(-1).tolist()


def test_frequencies_match_the_distribution() -> None:
    """12,000 draws, at 40 positions of 300 chains: chi-square with 19 degrees of freedom."""
    params = replace(GREEDY, temperature=0.8, top_k=20)
    x = logits(1, 1.5).expand(300, -1)
    p = distribution(x[:1], params)[0]
    drawn = [
        token
        for position in range(40)
        for token in sample(x.clone(), [chain(params, number, position) for number in range(300)])
    ]
    kept = p.nonzero().squeeze(1)
    found = torch.bincount(torch.tensor(drawn), minlength=VOCABULARY)[kept]
    assert found.sum() == len(drawn)  # nothing that was removed
    expected = p[kept] * len(drawn)
    assert expected.min() > 20  # else chi-square is no measure
    assert ((found - expected) ** 2 / expected).sum() < 43.8  # exceeded once in a thousand


def test_noise_is_gumbel() -> None:
    noise = gumbel(torch.arange(100) * 0x9E3779B97F4A7C15 % 2**62, torch.arange(10_000).expand(100, -1))
    values = noise.flatten().double().sort().values
    assert abs(values.mean() - 0.5772157) < 0.005
    assert abs(values.var() - math.pi**2 / 6) < 0.02
    empirical = torch.arange(1, len(values) + 1) / len(values)
    assert (torch.exp(-torch.exp(-values)) - empirical).abs().max() < 0.002  # Kolmogorov: 1.95 / sqrt(n)


def test_noise_is_finite_for_every_hash() -> None:
    """With 24 bits plus a half the largest one was rounded to 1, whose noise is infinite: one draw in
    2^24, and it won against every token, or made a removed one (-inf + inf) win."""
    bits = torch.tensor([-1, 0, 2**31 - 1, -(2**31), 511, -512], dtype=torch.int32)
    found = uniform(bits)
    assert (found > 0).all() and (found < 1).all()
    assert (-(-found.log()).log()).isfinite().all()


def test_noise_is_a_function_of_key_and_token() -> None:
    keys, ids = torch.tensor([5, -(2**62) + 11]), torch.tensor([[7, 100_000, 3], [3, 7, 0]])
    noise = gumbel(keys, ids)
    assert noise[0, 0] == gumbel(keys[:1], torch.tensor([[7]])).item()
    assert torch.equal(gumbel(keys.flip(0), ids.flip(0)), noise.flip(0))
    assert noise[0, 2] != noise[1, 0] and noise[0, 0] != noise[1, 1]


def test_chains_have_streams_of_their_own() -> None:
    keys = {
        noise_key(seed, problem, number)
        for seed in (0, 1)
        for problem in ("a", "b", "1")
        for number in range(9)
    }
    assert len(keys) == 2 * 3 * 9
    assert noise_key(1, "2", 3) == noise_key(1, "2", 3) < 2**64


def draws(params: SamplingParams, number: int = 0, seed: int = 0) -> list[int]:
    x = logits(1, 1.0).expand(30, -1).clone()
    return sample(x, [chain(params, number, position, seed) for position in range(30)])


def test_seed_sample_and_position_matter_and_nothing_else() -> None:
    params = replace(GREEDY, temperature=1.0, top_k=1000)
    first = draws(params)
    assert draws(params) == first
    assert len(set(first)) > 20  # positions differ
    assert draws(params, number=1) != first and draws(params, seed=1) != first
    assert draws(replace(params, top_k=1001, max_new_tokens=7, stop=("x",)))[:5] == first[:5]


def test_greedy_ignores_the_noise() -> None:
    assert len({token for seed in range(3) for token in draws(GREEDY, seed=seed)}) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_mates_and_order_do_not_matter(threads: int) -> None:
    """Rows of several settings, rows that need the whole vocabulary among rows that do not, and many ties
    (as bfloat16 makes them) where top-p cuts."""
    kinds = [
        replace(GREEDY, temperature=1.0, top_p=0.5),
        GREEDY,
        replace(GREEDY, temperature=1.0, top_p=0.9, top_k=40, min_p=0.02),
        replace(GREEDY, temperature=1.5, repetition_penalty=1.2),
    ]
    sequences = [chain(kinds[number % 4], number, number) for number in range(48)]
    x = torch.cat([logits(24, 0.2, seed=1), logits(24, 2.0, seed=2)]).mul(4).round().div(4)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = sample(x.clone(), sequences)
        order = torch.randperm(48, generator=torch.Generator().manual_seed(0)).tolist()
        shuffled = sample(x[order], [sequences[row] for row in order])
        assert shuffled == [together[row] for row in order]
        for row, sequence in enumerate(sequences):
            assert sample(x[row : row + 1].clone(), [sequence]) == [together[row]]
    finally:
        torch.set_num_threads(before)
