"""Memories of fixed size: by their definitions, token by token, in chunks of any size, and in slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from seer_ray.kernels import decay, delta, pooling, taylor, vector

BATCH, TOKENS, HEADS, KEYS, VALUES = 2, 37, 3, 4, 6


class Case(NamedTuple):
    """One kind."""

    inputs: Callable[[], list[Tensor]]
    state: tuple[int, ...]
    """Of one sequence."""
    recurrent: Any
    chunked: Any
    step: Any
    chunks: tuple[int, ...]
    defined: Callable[..., Tensor]
    """By the formula, in float64, of a whole sequence of the batch."""


def draw(*shape: int) -> Tensor:
    return torch.randn(BATCH, TOKENS, *shape)


def qkv() -> list[Tensor]:
    return [draw(HEADS, KEYS), draw(HEADS, KEYS), draw(HEADS, VALUES)]


def decayed(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    g = g if g.dim() == 4 else g.unsqueeze(-1).expand_as(k)
    total = g.cumsum(1)
    left = (total.unsqueeze(2) - total.unsqueeze(1)).exp()  # [batch, t, j, heads, keys]
    weights = torch.einsum("bthk,bjhk,btjhk->bhtj", q, k, left).tril()
    return torch.einsum("bhtj,bjhv->bthv", weights, v)


def vectors(f: Tensor, x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for j in range(t + 1):
            out[:, t] += f[:, j + 1 : t + 1].prod(1) * (1 - f[:, j]) * x[:, j]
    return out


def pooled(s: Tensor, v: Tensor) -> Tensor:
    weight = s.exp().unsqueeze(-1)
    return (weight * v).cumsum(1) / weight.cumsum(1)


def series(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    x = torch.einsum("bthk,bjhk->bhtj", q, k)
    weights = (1 + x + x**2 / 2).tril()
    return torch.einsum("bhtj,bjhv->bthv", weights / weights.sum(-1, keepdim=True), v)


def by_delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor) -> Tensor:
    state, outs = torch.zeros(BATCH, HEADS, KEYS, VALUES, dtype=v.dtype), []
    q, k = (x / (x.square().sum(-1, keepdim=True) + delta.EPS).sqrt() for x in (q, k))
    for t in range(TOKENS):
        state = g[:, t].exp()[..., None, None] * state
        erased = torch.eye(KEYS, dtype=v.dtype) - b[:, t, :, None, None] * (
            k[:, t, :, :, None] * k[:, t, :, None]
        )
        state = erased @ state + b[:, t, :, None, None] * k[:, t, :, :, None] * v[:, t, :, None]
        outs.append((state * q[:, t, :, :, None]).sum(-2) * KEYS**-0.5)
    return torch.stack(outs, dim=1)


def log_decays(*shape: int) -> Tensor:
    """From hardly any to the fastest."""
    return -(5 * torch.rand(BATCH, TOKENS, *shape) ** 4)


MATRIX = (HEADS, KEYS, VALUES)
CASES = {
    "decay of a head": Case(
        lambda: [*qkv(), log_decays(HEADS)],
        MATRIX,
        decay.recurrent,
        decay.chunked,
        decay.step,
        (1, 8, 64),
        decayed,
    ),
    "decay of a channel": Case(
        lambda: [*qkv(), log_decays(HEADS, KEYS)],
        MATRIX,
        decay.recurrent,
        decay.chunked,
        decay.step,
        (1, 5, 16),
        decayed,
    ),
    "delta rule": Case(
        lambda: [*qkv(), log_decays(HEADS), torch.rand(BATCH, TOKENS, HEADS)],
        MATRIX,
        delta.recurrent,
        delta.chunked,
        delta.step,
        (1, 8, 64),
        by_delta,
    ),
    "vector": Case(
        lambda: [torch.rand(BATCH, TOKENS, 5), draw(5)],
        (5,),
        vector.recurrent,
        vector.chunked,
        vector.step,
        (1, 8, 64),
        vectors,
    ),
    "pooling": Case(
        lambda: [3 * draw(HEADS), draw(HEADS, VALUES)],
        (HEADS, VALUES + 2),
        pooling.recurrent,
        pooling.chunked,
        pooling.step,
        (1, 8, 64),
        pooled,
    ),
    "taylor": Case(
        qkv,
        (HEADS, taylor.feature_count(KEYS), VALUES + 1),
        taylor.recurrent,
        taylor.chunked,
        taylor.step,
        (1, 8, 64),
        series,
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(1)
    return CASES[request.param]


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted.float(), atol=1e-5, rtol=1e-5)


def test_token_by_token_it_is_the_definition(case: Case) -> None:
    inputs = case.inputs()
    out, _ = case.recurrent(*inputs, torch.zeros(BATCH, *case.state))
    near(out, case.defined(*(x.double() for x in inputs)))


def test_chunks_of_any_size_are_token_by_token(case: Case) -> None:
    inputs, nothing = case.inputs(), torch.zeros(BATCH, *case.state)
    wanted, state = case.recurrent(*inputs, nothing)
    for chunk in case.chunks:
        out, after = case.chunked(*inputs, nothing, chunk=chunk)
        near(out, wanted)
        near(after, state)


def test_a_sequence_goes_on_from_its_state(case: Case) -> None:
    """In parts of any length, then token by token in slots, beside others that stay as they were."""
    inputs = case.inputs()
    wanted, _ = case.recurrent(*inputs, torch.zeros(BATCH, *case.state))
    state, outs = torch.zeros(BATCH, *case.state), []
    for some in (slice(0, 11), slice(11, 12), slice(12, 30)):
        out, state = case.chunked(*(x[:, some] for x in inputs), state)
        outs.append(out)
    slots, kept = torch.tensor([3, 1]), torch.randn(5, *case.state)
    others = kept[[0, 2, 4]].clone()
    kept[slots] = state
    for t in range(30, TOKENS):
        outs.append(case.step(*(x[:, t] for x in inputs), kept, slots).unsqueeze(1))
    near(torch.cat(outs, dim=1), wanted)
    assert torch.equal(kept[[0, 2, 4]], others)


def test_a_whole_series_needs_no_state() -> None:
    torch.manual_seed(2)
    q, k, v = qkv()
    near(taylor.parallel(q, k, v), series(q.double(), k.double(), v.double()))


def test_a_mean_of_scores_far_apart_is_a_number() -> None:
    scores, values = torch.tensor([-300.0, 300.0, -300.0]).view(1, 3, 1), torch.tensor([1.0, 2.0, 3.0])
    for chunk in (1, 3):
        out, _ = pooling.chunked(scores, values.view(1, 3, 1, 1), chunk=chunk)
        assert out.flatten().tolist() == [1, 2, 2]


@pytest.mark.parametrize("kernel", [2, 4])
def test_a_convolution_of_a_part_goes_on_from_the_last_inputs(kernel: int) -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(2, 9, 5), torch.randn(5, kernel)
    whole, _ = delta.convolve(x, None, weight)
    padded = torch.nn.functional.pad(x.mT, (kernel - 1, 0))
    wanted = torch.nn.functional.silu(torch.conv1d(padded, weight.unsqueeze(1), groups=5)).mT
    torch.testing.assert_close(whole, wanted)
    first, before = delta.convolve(x[:, :1], None, weight)
    second, before = delta.convolve(x[:, 1:6], before, weight)
    states, slots = torch.zeros(3, 5, kernel), torch.tensor([2, 0])
    states[slots] = before
    rest = [delta.convolve_step(x[:, t], states, slots, weight).unsqueeze(1) for t in range(6, 9)]
    torch.testing.assert_close(torch.cat([first, second, *rest], dim=1), whole)
