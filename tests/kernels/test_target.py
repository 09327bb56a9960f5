"""The distillation target against an attention map that is written out in float64."""

from __future__ import annotations

import shutil

import pytest
import torch

from seer_ray.kernels import cpu
from seer_ray.kernels import target as module
from seer_ray.kernels.target import attend_with_target


def drawn(tokens: int, group: int, heads: int = 2, dim: int = 16, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((tokens, heads * group, dim), (tokens, heads, dim), (tokens, heads, dim))
    return [2 * torch.randn(shape, generator=draw) for shape in shapes]


def written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int, scale: float, kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, row by row and head by head, on whole maps in float64."""
    q, k, v = q.double(), k.double(), v.double()
    tokens, heads, group = len(q), k.shape[1], q.shape[1] // k.shape[1]
    out, shares = torch.zeros_like(q), torch.zeros(tokens, heads, max(0, tokens - 1) // block).double()
    for row in range(tokens):
        for head in range(heads):
            of_group = []
            for member in range(head * group, (head + 1) * group):
                p = torch.softmax(k[: row + 1, head] @ q[row, member] * scale, 0)
                out[row, member] = p @ v[: row + 1, head]
                blocks = p[: row // block * block].view(-1, block)
                of_group.append(blocks.amax(1) if kind == "max" else blocks.sum(1))
            together = torch.stack(of_group)
            together = together.amax(0) if kind == "max" else together.sum(0)
            if len(together):
                shares[row, head, : len(together)] = together / together.sum()
    return out, shares


@pytest.mark.parametrize("kind", module.KINDS)
@pytest.mark.parametrize("group", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 53])
def test_equals_the_map(tokens: int, group: int, kind: module.Kind) -> None:
    q, k, v = drawn(tokens, group)
    expected_out, expected = written_out(q, k, v, 8, 0.3, kind)
    out, target = attend_with_target(q, k, v, 8, 0.3, kind=kind)
    assert target.dtype == torch.float32
    torch.testing.assert_close(target.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.double(), expected_out, rtol=0, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("group", [1, 3, 4, 5, 8])
@pytest.mark.parametrize(
    ("tokens", "block", "first"), [(1, 16, 0), (83, 16, 0), (200, 48, 60), (201, 64, 127)]
)
def test_compiled_equals_the_map(tokens: int, block: int, first: int, group: int) -> None:
    q, k, v = drawn(tokens, group)
    assert cpu.takes_target(q, block)
    expected_out, expected = written_out(q, k, v, block, 0.3, "max")
    out, target = attend_with_target(q, k, v, block, 0.3, first)
    torch.testing.assert_close(target.double(), expected[first:], rtol=0, atol=1e-5)
    torch.testing.assert_close(out.double(), expected_out, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", module.KINDS)
@pytest.mark.parametrize("first", [0, 1, 40, 63, 129])
def test_tiles_chunks_and_late_rows(first: int, kind: module.Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small tiles and chunks that end anywhere; rows before ``first`` attend and have no target."""
    monkeypatch.setattr(module, "ROWS", 37)
    monkeypatch.setattr(module, "TILE_NUMBERS", 37 * 6 * 16)
    q, k, v = drawn(130, 3, seed=1)
    k[:, 1] *= 3  # peaked: some shares vanish
    expected_out, expected = written_out(q, k, v, 8, 0.3, kind)
    out, target = attend_with_target(q, k, v, 8, 0.3, first, kind)
    torch.testing.assert_close(target.double(), expected[first:], rtol=0, atol=1e-5)
    torch.testing.assert_close(out.double(), expected_out, rtol=0, atol=5e-5)


def test_rows_sum_to_one_or_have_none() -> None:
    q, k, v = drawn(50, 4)
    _, target = attend_with_target(q, k, v, 16, 0.3)
    sums = target.sum(2)
    assert (sums[:16] == 0).all()
    torch.testing.assert_close(sums[16:], torch.ones_like(sums[16:]))
    own = torch.arange(50) // 16
    assert (target[own == 1][:, :, 1:] == 0).all() and (target[own == 2][:, :, :2] > 0).all()


def test_kinds_differ_and_unknown_ones_are_refused() -> None:
    """One sharp token against a block of many dull ones: max and mass disagree."""
    q, k = torch.ones(17, 1, 1), torch.zeros(17, 1, 1)
    k[0], k[8:16] = 4.0, 3.0
    targets = [attend_with_target(q, k, k, 8, 1.0, 16, kind)[1][0, 0] for kind in module.KINDS]
    assert targets[0].argmax() == 0 and targets[1].argmax() == 1
    with pytest.raises(ValueError, match="kind=mean"):
        attend_with_target(q, k, k, 8, 1.0, kind="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [8, 16], ids=["torch", "compiled"])
def test_half_precision_keeps_maxima_in_float32(block: int) -> None:
    """Inputs that bfloat16 holds exactly give the target of the same numbers in fp32, under autocast too."""
    q, k, v = (x.bfloat16() for x in drawn(70, 3))
    with torch.autocast("cpu", torch.bfloat16):
        out, target = attend_with_target(q, k, v, block, 0.3)
    exact_out, exact = written_out(q, k, v, block, 0.3, "max")
    torch.testing.assert_close(target.double(), exact, rtol=0, atol=3e-5)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), exact_out, rtol=1e-2, atol=1e-2)


def test_large_logits() -> None:
    """Also where the own block takes everything and the earlier ones underflow: such a row has no target."""
    q, k, v = drawn(40, 2)
    q *= 60
    expected_out, expected = written_out(q, k, v, 8, 1.0, "max")
    out, target = attend_with_target(q.double(), k.double(), v.double(), 8, 1.0)
    torch.testing.assert_close(target, expected.nan_to_num(0.0), rtol=0, atol=1e-9)
    torch.testing.assert_close(out, expected_out, rtol=0, atol=1e-9)
    assert attend_with_target(q, k, v, 8, 1.0)[1].isfinite().all()
