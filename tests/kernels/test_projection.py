"""Products of rows with weights: as exact as torch's, and every row's bits its own."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from seer_ray.kernels import compiled, cpu
from seer_ray.kernels.projection import Weight, mlp, projections, reference, reference_mlp

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
SIZES = [(1, 1), (5, 3), (63, 7), (100, 111), (576, 192), (1536, 65)]
SHAPES = pytest.mark.parametrize("inputs, outputs", SIZES)


@pytest.fixture(
    params=[
        pytest.param("", id="native"),
        pytest.param("-march=x86-64-v3", id="avx2"),
        pytest.param("-march=x86-64", id="sse2", marks=pytest.mark.long),
    ]
)
def slack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The products compiled for this CPU and for narrower ones, and the error that they may have, as multiple
    of torch's: fewer sums run beside each other there, so each is longer."""
    if not request.param:
        yield 1.02
        return
    if platform.machine() != "x86_64":
        pytest.skip("for x86")
    cache: Path = request.getfixturevalue("tmp_path_factory").getbasetemp() / "narrow"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(compiled, "FLAGS", [*compiled.FLAGS, request.param])
    compiled.binary.cache_clear()
    yield 1.7
    compiled.binary.cache_clear()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weight(outputs: int, inputs: int, dtype: torch.dtype, seed: int = 1, bias: bool = True) -> Weight:
    offset = draw(outputs, dtype=dtype, seed=seed + 100) if bias else None
    return draw(outputs, inputs, dtype=dtype, seed=seed) / inputs**0.5, offset


def rmse(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


@SHAPES
@DTYPES
def test_error_is_no_worse_than_that_of_torch(
    inputs: int, outputs: int, dtype: torch.dtype, slack: float
) -> None:
    x = draw(2, 8, inputs, dtype=dtype)
    weights = [weight(outputs, inputs, dtype, bias=bias) for bias in (True, False)]
    assert cpu.takes_projections(x, weights)
    for found, theirs, (matrix, bias) in zip(
        projections(x, weights), reference(x, weights), weights, strict=True
    ):
        assert found.shape == theirs.shape and found.dtype == dtype
        expected = x.double() @ matrix.double().T + (0 if bias is None else bias.double())
        # Of a handful of products the luck of roundings decides.
        assert rmse(found, expected) <= slack * rmse(theirs, expected) + (3e-8 if inputs < 100 else 0)


@SHAPES
@DTYPES
def test_mlp(inputs: int, outputs: int, dtype: torch.dtype, slack: float) -> None:
    x = 4 * draw(16, inputs, dtype=dtype)
    gate, up = weight(outputs, inputs, dtype), weight(outputs, inputs, dtype, seed=2, bias=False)
    weights = gate, up, weight(inputs, outputs, dtype, seed=3)
    found, theirs = mlp(x, *weights), reference_mlp(x, *weights)
    wide = [tuple(None if part is None else part.double() for part in pair) for pair in weights]
    expected = reference_mlp(x.double(), *wide)
    assert found.shape == x.shape and found.dtype == dtype
    assert rmse(found, expected) <= slack * rmse(theirs, expected) + 3e-8


def test_silu_far_from_zero() -> None:
    x = torch.tensor([[-1e4], [-100.0], [-20.0], [0.0], [20.0], [1e30], [float("nan")]])
    one = torch.ones(1, 1)
    weights = [(one, None)] * 3
    torch.testing.assert_close(mlp(x, *weights), reference_mlp(x, *weights), equal_nan=True)


@pytest.mark.parametrize("inputs, outputs", [(63, 7), (577, 190)])
@DTYPES
def test_bits_of_a_row_do_not_depend_on_mates_place_or_threads(
    inputs: int, outputs: int, dtype: torch.dtype, slack: float, threads: None
) -> None:
    rows = draw(16, inputs, dtype=dtype)
    weights = [weight(outputs, inputs, dtype, seed=s, bias=s == 1) for s in (1, 2, 3)]
    down = weight(inputs, outputs, dtype, seed=4)

    def outcome(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([*projections(x, weights), mlp(x, *weights[:2], down)], dim=-1)

    torch.set_num_threads(1)
    expected = torch.cat([outcome(row.unsqueeze(0)) for row in rows])
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        for size in range(1, 17):
            for first in {0, 16 - size, (16 - size) // 2}:
                assert torch.equal(outcome(rows[first : first + size]), expected[first : first + size])
        assert torch.equal(outcome(rows.flip(0)).flip(0), expected)


@DTYPES
def test_nothing_beyond_is_read_or_written(dtype: torch.dtype) -> None:
    """Operands in the midst of NaN: the inner dimension ends within a vector, the outputs within a tile."""

    def within(part: torch.Tensor) -> torch.Tensor:
        buffer = torch.full((part.numel() + 128,), float("nan"), dtype=dtype)
        buffer[64:-64] = part.flatten()
        return buffer[64:-64].view(part.shape)

    x, (matrix, bias) = draw(5, 37, dtype=dtype), weight(6, 37, dtype)
    assert bias is not None
    (expected,), (found,) = (
        projections(x, [(matrix, bias)]),
        projections(within(x), [(within(matrix), within(bias))]),
    )
    assert torch.equal(found, expected)
    torch.testing.assert_close(found, reference(x, [(matrix, bias)])[0], rtol=2**-7, atol=1e-5)


def test_what_it_takes() -> None:
    x, pair = draw(16, 8, dtype=torch.float32), weight(4, 8, torch.float32)
    assert cpu.takes_projections(x, [pair, pair])
    assert cpu.takes_projections(draw(1000, 8, dtype=torch.float32), [pair])
    assert not cpu.takes_projections(x[:0], [pair])
    assert not cpu.takes_projections(x.bfloat16(), [pair])
    assert not cpu.takes_projections(x.double(), [weight(4, 8, torch.float64)])
    assert not cpu.takes_projections(x, [(draw(8, 4, dtype=torch.float32).T, None)])
    assert not cpu.takes_projections(x.requires_grad_(), [pair])
    with torch.no_grad():
        assert cpu.takes_projections(x, [pair])
        with torch.autocast("cpu", torch.bfloat16):
            assert not cpu.takes_projections(x, [pair])


@pytest.mark.parametrize("itself", [True, False])
def test_many_rows_of_bf16_are_left_to_a_torch_that_multiplies_them(
    itself: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "multiplies_bf16", lambda: itself)
    pair = weight(4, 8, torch.bfloat16)
    assert cpu.takes_projections(draw(cpu.FEW, 8, dtype=torch.bfloat16), [pair])
    assert cpu.takes_projections(draw(cpu.FEW + 1, 8, dtype=torch.bfloat16), [pair]) is not itself


@DTYPES
def test_many_rows_have_the_bits_of_one(
    dtype: torch.dtype, slack: float, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several bands, chunks and stretches, none of them whole."""
    monkeypatch.setattr(compiled, "multiplies_bf16", lambda: False)
    rows = draw(299, 2100, dtype=dtype)
    gate, up = (weight(70, 2100, dtype, seed=s, bias=s == 1) for s in (1, 2))
    down = weight(9, 70, dtype, seed=3)

    def outcome(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([*projections(x, [up, gate]), mlp(x, gate, up, down)], dim=-1)

    torch.set_num_threads(1)
    some = [0, 1, 5, 127, 128, 150, 256, 298]
    expected = torch.cat([outcome(rows[at : at + 1]) for at in some])
    for count in (1, 3):
        torch.set_num_threads(count)
        assert torch.equal(outcome(rows)[some], expected)


def test_gradients_flow() -> None:
    x, (matrix, bias) = draw(3, 8, dtype=torch.float32), weight(8, 8, torch.float32)
    matrix.requires_grad_()
    (projections(x, [(matrix, bias)])[0].sum() + mlp(x, *[(matrix, bias)] * 3).sum()).backward()
    assert matrix.grad is not None and matrix.grad.abs().sum() > 0


def test_strided_rows() -> None:
    wide, pair = draw(4, 64, dtype=torch.float32), weight(5, 32, torch.float32)
    assert torch.equal(
        projections(wide[:, 32:], [pair])[0], projections(wide[:, 32:].contiguous(), [pair])[0]
    )
