"""The Triton kernel of ``prefill`` in the interpreter, against float64."""

from __future__ import annotations

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

import prefill_checks as checks  # noqa: E402

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
SELECTED = pytest.mark.parametrize("k", [0, 3], ids=["dense", "sparse"])
# Over two borders from within a page, one token, and one whole page.
FEW = ((5, 39), (21, 22), (16, 32))


@DTYPES
@SELECTED
def test_chunks_of_all_kinds(dtype: torch.dtype, k: int) -> None:
    checks.prefill_is_its_definition("cpu", dtype, k=k)


@SELECTED
@pytest.mark.parametrize("group", [1, 5, 8, 16])
def test_groups(group: int, k: int) -> None:
    checks.prefill_is_its_definition("cpu", torch.float32, spans=FEW, group=group, heads=1, k=k, seed=group)


@SELECTED
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])
def test_head_dims(dim: int, k: int) -> None:
    checks.prefill_is_its_definition("cpu", torch.float32, spans=FEW, heads=1, dim=dim, k=k, seed=dim)


@SELECTED
@pytest.mark.parametrize("block", [8, 32, 64, 128])
def test_blocks(block: int, k: int) -> None:
    """Pages smaller than a tile of keys, as large, and larger."""
    spans = ((block - 3, block + 5), (2 * block, 2 * block + 1), (0, 7))
    shape = {"spans": spans, "heads": 1, "group": 2, "block": block, "k": k}
    checks.prefill_is_its_definition("cpu", torch.float32, **shape)


@DTYPES
@pytest.mark.parametrize("group", [2, 3])
def test_lists_of_query_heads(dtype: torch.dtype, group: int) -> None:
    shape = {"spans": FEW, "k": 3, "group": group, "own_lists": True}
    checks.prefill_is_its_definition("cpu", dtype, **shape)
    checks.prefill_chunks_stand_alone("cpu", dtype, **shape)


@DTYPES
@SELECTED
@pytest.mark.parametrize("block", [16, 64])
def test_eight_bits(dtype: torch.dtype, block: int, k: int) -> None:
    shape = {"spans": FEW, "heads": 2, "block": block, "k": k, "kv_dtype": torch.int8}
    checks.prefill_is_its_definition("cpu", dtype, **shape)
    checks.prefill_chunks_stand_alone("cpu", dtype, **shape)


@DTYPES
@pytest.mark.parametrize("block", [16, 64])
def test_identity_lists_are_dense_attention(dtype: torch.dtype, block: int) -> None:
    checks.prefill_identity_is_dense("cpu", dtype, spans=FEW, block=block)


@pytest.mark.parametrize(("window", "sinks"), [(1, True), (20, False), (33, True)])
def test_windows_and_sinks(window: int, sinks: bool) -> None:
    for block in (16, 64):
        shape = {"spans": FEW, "heads": 1, "block": block, "window": window, "sinks": sinks}
        checks.prefill_is_its_definition("cpu", torch.float32, **shape)


@DTYPES
@SELECTED
def test_sinks(dtype: torch.dtype, k: int) -> None:
    checks.prefill_is_its_definition("cpu", dtype, spans=FEW, heads=1, k=k, sinks=True)


@DTYPES
@SELECTED
def test_a_chunk_does_not_depend_on_its_mates(dtype: torch.dtype, k: int) -> None:
    checks.prefill_chunks_stand_alone("cpu", dtype, spans=FEW, heads=1, k=k)


@pytest.mark.parametrize("block", [16, 64])
def test_cuts_do_not_matter(block: int) -> None:
    cuts = ((1, 64), (15, 17, 69))
    checks.prefill_cuts_do_not_matter("cpu", torch.float32, 70, cuts, heads=1, group=2, block=block)


@DTYPES
def test_large_and_equal_logits(dtype: torch.dtype) -> None:
    checks.prefill_large_and_equal_logits("cpu", dtype, spans=FEW, k=2)


def test_no_pages_give_zeros() -> None:
    case = checks.PackedCase(spans=FEW, k=2)
    before = checks.prefill(*case.arguments())  # type: ignore[arg-type]
    assert case.counts is not None
    case.counts[1, 0] = 0
    tile = case.chunks.tiles[1]
    after = checks.prefill(*case.arguments())  # type: ignore[arg-type]
    rows = slice(tile.first, tile.first + tile.end - tile.start)
    assert (after[rows, : case.group] == 0).all()
    after[rows, : case.group] = before[rows, : case.group]
    assert torch.equal(after, before)
