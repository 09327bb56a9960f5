"""The gated delta rule: parallel, chunked, recurrent and compiled are one and the same."""

from __future__ import annotations

import shutil
from typing import NamedTuple

import pytest
import torch
from transformers.models.qwen3_next import modeling_qwen3_next as theirs

from seer_ray.kernels import compiled, delta

NEAR = {"atol": 1e-5, "rtol": 1e-5}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
BUILT = pytest.mark.parametrize(
    "built", [pytest.param(True, marks=needs_compiler), False], ids=["compiled", "torch"]
)


class Case(NamedTuple):
    """Arguments of ``delta.recurrent``."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    g: torch.Tensor
    b: torch.Tensor
    state: torch.Tensor

    @classmethod
    def of(
        cls,
        batch: int = 2,
        tokens: int = 1,
        key_heads: int = 2,
        heads: int = 4,
        key_dim: int = 24,
        value_dim: int = 40,
        begun: bool = True,
    ) -> Case:
        """Strengths up to 2, as of models with negative eigenvalues; decays from next to none to e-9."""
        draw = torch.Generator().manual_seed(tokens + key_dim)
        q, k = torch.randn(2, batch, tokens, key_heads, key_dim, generator=draw)
        v = torch.randn(batch, tokens, heads, value_dim, generator=draw)
        g = -9 * torch.rand(batch, tokens, heads, generator=draw) ** 4
        b = 2 * torch.rand(batch, tokens, heads, generator=draw)
        state = torch.randn(batch, heads, key_dim, value_dim, generator=draw)
        return cls(q, k, v, g, b, state if begun else torch.zeros_like(state))

    def tokens(self, start: int, end: int) -> list[torch.Tensor]:
        return [x[:, start:end] for x in self[:5]]


def parallel(case: Case) -> torch.Tensor:
    """All tokens at once, in float64: for each pair, what is left of the one when the other is read."""
    q, k, v, g, b, state = (x.double() for x in case)
    served = v.shape[2] // k.shape[2]
    q, k = (x.repeat_interleave(served, dim=2).transpose(1, 2) for x in (q, k))
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    v, g, b = (x.transpose(1, 2) for x in (v, g, b))
    tokens, since = v.shape[2], g.cumsum(-1)
    left = torch.full((*g.shape, tokens), 0.0, dtype=torch.float64)
    for t in range(tokens):
        for s in range(t + 1):
            left[..., t, s] = (since[..., t] - since[..., s]).exp()
    before = since.exp().unsqueeze(-1)
    known = torch.einsum("bhtk,bhsk->bhts", k, k) * left * (1 - torch.eye(tokens, dtype=torch.float64))
    system = torch.eye(tokens, dtype=torch.float64) + b.unsqueeze(-1) * known
    written = torch.linalg.solve(system, b.unsqueeze(-1) * (v - before * (k @ state)))
    out = before * (q @ state) + (torch.einsum("bhtk,bhsk->bhts", q, k) * left) @ written
    return (out / q.shape[-1] ** 0.5).transpose(1, 2).float()


@pytest.mark.parametrize("begun", [False, True], ids=["zeros", "begun"])
@pytest.mark.parametrize("tokens", [1, 7, 63, 64, 65, 130])
def test_parallel_chunked_and_recurrent(tokens: int, begun: bool) -> None:
    case = Case.of(tokens=tokens, begun=begun)
    expected, after = delta.recurrent(*case)
    torch.testing.assert_close(parallel(case), expected, **NEAR)
    for chunk in (1, 16, 64, 200):
        out, state = delta.chunked(*case, chunk)
        torch.testing.assert_close(out, expected, **NEAR)
        torch.testing.assert_close(state, after, **NEAR)


@pytest.mark.parametrize("cut", [1, 33, 64, 99])
def test_a_prompt_in_two_parts(cut: int) -> None:
    case = Case.of(tokens=100)
    whole, after = delta.chunked(*case)
    first, state = delta.chunked(*case.tokens(0, cut), case.state)
    second, state = delta.chunked(*case.tokens(cut, 100), state)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, **NEAR)
    torch.testing.assert_close(state, after, **NEAR)


def test_it_is_that_of_the_models() -> None:
    q, k, v, g, b, state = Case.of(tokens=70)
    for own, form in (
        (delta.recurrent, theirs.torch_recurrent_gated_delta_rule),
        (delta.chunked, theirs.torch_chunk_gated_delta_rule),
    ):
        out, after = own(q, k, v, g, b, state)
        expected, last = form(
            q, k, v, g=g, beta=b, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True
        )
        torch.testing.assert_close(out, expected, **NEAR)
        torch.testing.assert_close(after, last, **NEAR)


SIZES = [
    {"key_heads": 1, "heads": 1, "key_dim": 1, "value_dim": 1},
    {"key_heads": 2, "heads": 6, "key_dim": 24, "value_dim": 65},
    {"key_heads": 2, "heads": 2, "key_dim": 128, "value_dim": 128},
    {"key_heads": 1, "heads": 2, "key_dim": 256, "value_dim": 130},
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "-".join(map(str, size.values())))
@BUILT
def test_steps_in_place(size: dict[str, int], built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in any slots; the states of others stay as they are."""
    if not built:
        monkeypatch.setattr(compiled, "binary", lambda: None)
    case, slots = Case.of(batch=3, tokens=20, **size), torch.tensor([5, 0, 3])
    expected, after = delta.recurrent(*case)
    states = torch.randn(7, *case.state.shape[1:])
    others = states.clone()
    states[slots] = case.state
    for t in range(20):
        out = delta.step(*(x[:, t] for x in case[:5]), states, slots)
        torch.testing.assert_close(out, expected[:, t], **NEAR)
    torch.testing.assert_close(states[slots], after, **NEAR)
    rest = torch.tensor([1, 2, 4, 6])
    assert torch.equal(states[rest], others[rest])


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_bits_of_a_row_are_its_own(dtype: torch.dtype) -> None:
    """Whoever is beside it, wherever it stands, with any number of threads, and with padding in one slot."""
    case = Case.of(batch=5, key_dim=64, value_dim=96)
    rows = [x[:, 0].to(dtype) for x in case[:5]]
    rows[3] = case.g[:, 0]
    alone = []
    for row in range(5):
        state = case.state[row : row + 1].clone()
        out = delta.step(*(x[row : row + 1] for x in rows), state, torch.tensor([0]))
        alone.append((out[0], state[0]))
    order, threads = [3, 0, 4, 0, 2, 1, 0], torch.get_num_threads()
    slots = torch.tensor([1 if row else 6 for row in order])
    slots[[0, 2, 4, 5]] = torch.tensor([2, 0, 5, 3])
    for count in (1, 2, 3):
        states = torch.zeros(8, *case.state.shape[1:])
        states[slots] = case.state[order]
        torch.set_num_threads(count)
        try:
            out = delta.step(*(x[order] for x in rows), states, slots)
        finally:
            torch.set_num_threads(threads)
        for at, row in enumerate(order):
            if row:
                assert torch.equal(out[at], alone[row][0]) and torch.equal(states[slots[at]], alone[row][1])
        assert states.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@BUILT
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("channels", "kernel"), [(1, 4), (700, 4), (1030, 2), (33, 3)])
def test_the_convolution_in_place(
    channels: int, kernel: int, bias: bool, built: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not built:
        monkeypatch.setattr(compiled, "binary", lambda: None)
    draw = torch.Generator().manual_seed(channels)
    x = torch.randn(9, 3, channels, generator=draw).to(dtype)
    weight = torch.randn(channels, kernel, generator=draw).to(dtype)
    offset = torch.randn(channels, generator=draw).to(dtype) if bias else None
    states, slots = torch.randn(6, channels, kernel, generator=draw).to(dtype), torch.tensor([4, 1, 2])
    kept, others = states[slots].clone(), states[[0, 3, 5]].clone()
    near = NEAR if dtype == torch.float32 else {"atol": 2**-7, "rtol": 2**-6}
    for t in range(9):
        expected = theirs.causal_conv1d_update(x[t].unsqueeze(-1), kept, weight, offset, "silu").squeeze(-1)
        torch.testing.assert_close(delta.convolve_step(x[t], states, slots, weight, offset), expected, **near)
        assert torch.equal(states[slots], kept)
    assert torch.equal(states[[0, 3, 5]], others)
