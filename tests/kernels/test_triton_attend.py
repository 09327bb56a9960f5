"""The Triton kernel of ``attend`` in the interpreter, against float64."""

from __future__ import annotations

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

import triton_checks as checks  # noqa: E402

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
# Three splits of 256 tokens in blocks of 16, the last not full.
LONG = {"rows": 3, "heads": 1, "group": 3, "dim": 16, "block": 16, "k": 40}


@pytest.mark.parametrize("group", [1, 3, 5, 8, 16])
def test_groups(group: int) -> None:
    checks.attend_is_its_definition("cpu", torch.float32, rows=2, group=group, dim=32, k=18, seed=group)


@DTYPES
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])
def test_head_dims(dtype: torch.dtype, dim: int) -> None:
    checks.attend_is_its_definition("cpu", dtype, rows=2, heads=1, dim=dim, block=64, k=5, seed=dim)


@DTYPES
@pytest.mark.parametrize("block", [8, 16, 32, 128, 256])
def test_blocks(dtype: torch.dtype, block: int) -> None:
    """Pages smaller than a tile, larger than one, and as large as a split."""
    k = 512 // block + 1
    checks.attend_is_its_definition("cpu", dtype, rows=2, heads=1, dim=64, block=block, k=k, seed=block)


def test_more_splits_than_are_folded_at_once() -> None:
    checks.attend_is_its_definition(
        "cpu", torch.float32, rows=2, heads=1, group=1, dim=16, block=128, k=2 * 16 + 3
    )


@pytest.mark.parametrize(("skips", "sinks"), [(True, False), (False, True), (True, True)])
def test_windows_and_sinks(skips: bool, sinks: bool) -> None:
    """Pages of several tiles, of which whole ones are not seen, and rows of one and several splits."""
    for block in (16, 128):
        shape = {"rows": 4, "heads": 1, "dim": 32, "block": block, "k": 512 // block + 1}
        checks.attend_is_its_definition("cpu", torch.float32, **shape, skips=skips, sinks=sinks)
    checks.attend_rows_stand_alone("cpu", torch.float32, **LONG, skips=skips, sinks=sinks)


@pytest.mark.parametrize("window", [None, 5, 40])
def test_rows_with_several_queries(window: int | None) -> None:
    for group, block in ((3, 16), (2, 64)):
        checks.attend_spans("cpu", torch.float32, window, heads=1, group=group, dim=16, block=block)


@DTYPES
def test_rows_without_pages(dtype: torch.dtype) -> None:
    checks.attend_gives_zeros_without_pages("cpu", dtype, **LONG)


@DTYPES
def test_a_row_does_not_depend_on_its_mates(dtype: torch.dtype) -> None:
    checks.attend_rows_stand_alone("cpu", dtype, **LONG | {"rows": 5})


@DTYPES
@pytest.mark.parametrize(("dim", "block"), [(80, 16), (64, 128)], ids=str)
def test_eight_bits(dtype: torch.dtype, dim: int, block: int) -> None:
    """Several pages a tile, and several tiles a page."""
    shape = {"heads": 2, "dim": dim, "block": block, "k": 272 // block + 1, "kv_dtype": torch.int8}
    checks.attend_is_its_definition("cpu", dtype, rows=2, **shape)
    checks.attend_rows_stand_alone("cpu", dtype, rows=3, **shape)


def test_order_of_pages_is_rounding() -> None:
    checks.attend_order_is_rounding("cpu", torch.float32, **LONG)


@DTYPES
def test_large_and_equal_logits(dtype: torch.dtype) -> None:
    checks.attend_large_and_equal_logits("cpu", dtype, **LONG)


@DTYPES
def test_identity_lists_are_dense_attention(dtype: torch.dtype) -> None:
    checks.attend_identity_is_dense("cpu", dtype, **LONG | {"heads": 2})
