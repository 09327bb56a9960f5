"""Block scores: both paths against the definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from seer_ray.kernels import cpu
from seer_ray.kernels.compiled import binary
from seer_ray.kernels.score import reference, score

BLOCK, WIDTH = 16, 24


def compiled(*arguments: torch.Tensor | int) -> torch.Tensor:
    if binary() is None:
        pytest.skip("no C++ compiler")
    return cpu.score(*arguments)  # type: ignore[arg-type]


PATHS = pytest.mark.parametrize("path", [compiled, reference], ids=["compiled", "torch"])


def case(
    vectors: int = 3, dtype: torch.dtype = torch.float32, dim: int = 48
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]:
    draw = torch.Generator().manual_seed(vectors)
    rows, heads, pages = 5, 2, 60
    features = torch.randn(rows, heads, vectors, dim, generator=draw)
    summary = torch.randn(pages, heads, dim, generator=draw).to(dtype)
    table = torch.randint(0, pages, (rows, WIDTH), generator=draw)
    lengths = torch.randint(1, WIDTH * BLOCK, (rows,), generator=draw)
    lengths[:3] = torch.tensor([1, WIDTH * BLOCK, 5 * BLOCK])
    # What follows a row's last page may hold anything.
    table[torch.arange(WIDTH) > (lengths // BLOCK).unsqueeze(1)] = 2**50
    return features, summary, table, lengths, BLOCK


def complete(lengths: torch.Tensor) -> torch.Tensor:
    return torch.arange(WIDTH) < (lengths // BLOCK).view(-1, 1, 1)


@PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("vectors", [1, 3, 8])
def test_definition(path: Callable[..., torch.Tensor], dtype: torch.dtype, vectors: int) -> None:
    features, summary, table, lengths, block = case(vectors, dtype)
    found = path(features, summary, table, lengths, block)
    assert found.dtype == torch.float32 and found.shape == (5, 2, WIDTH)
    for row in range(5):
        for index in range(int(lengths[row]) // block):
            key = summary[table[row, index]].double()  # [heads, dim]
            expected = torch.einsum("hvd,hd->hv", features[row].double(), key).amax(-1)
            torch.testing.assert_close(found[row, :, index].double(), expected, rtol=1e-5, atol=2e-5)


def test_paths_agree() -> None:
    arguments = case()
    ok = complete(arguments[3])
    found, expected = compiled(*arguments), reference(*arguments)
    torch.testing.assert_close(torch.where(ok, found, 0), torch.where(ok, expected, 0), rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_its_mates() -> None:
    features, summary, table, lengths, block = case(vectors=1)
    together = compiled(features, summary, table, lengths, block)
    for row in range(5):
        one, width = slice(row, row + 1), max(1, int(lengths[row]) // block)
        alone = compiled(features[one], summary, table[one, :width], lengths[one], block)
        ok = complete(lengths)[one, :, :width]
        assert torch.equal(torch.where(ok, alone, 0), torch.where(ok, together[one, :, :width], 0))


@PATHS
def test_order_of_rows_does_not_matter(path: Callable[..., torch.Tensor]) -> None:
    """All that the torch path promises, and all that exact mode needs: there the shapes are fixed."""
    features, summary, table, lengths, block = case()
    order = torch.tensor([3, 0, 4, 2, 1])
    ok = complete(lengths)
    expected = torch.where(ok, path(features, summary, table, lengths, block), 0)
    found = path(features[order], summary, table[order], lengths[order], block)
    assert torch.equal(torch.where(ok[order], found, 0), expected[order])


def test_choice_of_path() -> None:
    """float16 summaries have no compiled path."""
    features, summary, table, lengths, block = case()
    ok = complete(lengths)
    half = score(features, summary.half(), table, lengths, block)
    full = score(features, summary, table, lengths, block)
    torch.testing.assert_close(torch.where(ok, half, 0), torch.where(ok, full, 0), rtol=1e-2, atol=2e-2)
