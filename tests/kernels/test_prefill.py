"""Prompt chunks: causal attention over pages equals dense attention over the whole prompt."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from packed_case import PackedCase
from paged_case import error, limit
from torch.nn.functional import scaled_dot_product_attention

from seer_ray.kernels import cpu
from seer_ray.kernels.append import append
from seer_ray.kernels.chunks import Chunks, Tile
from seer_ray.kernels.prefill import prefill, reference

HEADS, DIM, BLOCK = 2, 32, 16
LONG = ((0, 300), (128, 256), (60, 70))


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)[0].transpose(
        0, 1
    )


@pytest.mark.parametrize("group", [1, 3, 4, 8])
@pytest.mark.parametrize("cuts", [[0, 100], [0, 1, 2, 100], [0, 16, 48, 100], [0, 37, 63, 64, 100]])
def test_chunks(group: int, cuts: list[int]) -> None:
    draw = torch.Generator().manual_seed(group)
    length = cuts[-1]
    q = torch.randn(length, HEADS * group, DIM, generator=draw)
    k, v = (torch.randn(length, HEADS, DIM, generator=draw) for _ in range(2))
    kv = torch.full((12, HEADS, 2, BLOCK, DIM), float("nan"))  # what is not written yet must not be read
    pages = torch.tensor([7, 2, 11, 5, 1, 9, 3])
    out = []
    for start, end in itertools.pairwise(cuts):
        position = torch.arange(start, end)
        append(k[start:end], v[start:end], kv, pages[position // BLOCK], position % BLOCK)
        out.append(prefill(q[start:end], kv, Chunks(((start, end),), pages.unsqueeze(0), BLOCK), 0.2))
    torch.testing.assert_close(torch.cat(out), dense(q, k, v, 0.2))


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@DTYPES
@pytest.mark.parametrize("k", [0, 1, 3], ids=["dense", "own page", "sparse"])
@pytest.mark.parametrize("group", [1, 4])
def test_packed_chunks(dtype: torch.dtype, k: int, group: int) -> None:
    case = PackedCase(dtype, k=k, group=group)
    found = prefill(*case.arguments())  # type: ignore[arg-type]
    assert found.dtype == dtype
    assert error(found, case.expected()) < limit(dtype)


@DTYPES
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
@pytest.mark.parametrize(
    "shape",
    [
        {"own_lists": True},
        {"own_lists": True, "dim": 80, "block": 24},
        {"block": 64, "dim": 64, "spans": LONG},
    ],
    ids=str,
)
def test_selected_pages_alone_are_read(dtype: torch.dtype, compiled: bool, shape: dict[str, Any]) -> None:
    """All else is NaN."""
    case = PackedCase(dtype, k=3, **shape)
    assert not compiled or cpu.takes(case.kv, 1, case.kv.shape[3], case.q.shape[2])
    found = (prefill if compiled else reference)(*case.arguments())  # type: ignore[arg-type]
    assert found.dtype == dtype
    assert error(found, case.expected()) < limit(dtype)


@DTYPES
def test_cuts_of_a_selected_prompt_do_not_matter(dtype: torch.dtype) -> None:
    """Nor mates: bit for bit, with what comes later not written yet."""
    case = PackedCase(dtype, spans=((0, 100), (3, 50)), k=3, own_lists=True, block=16)
    ids, counts, table = case.page_ids, case.counts, case.chunks.table[:1]
    assert ids is not None and counts is not None
    whole = prefill(*case.arguments())[:100]  # type: ignore[arg-type]
    for cuts in ((0, 16, 48, 100), (0, 37, 63, 64, 100)):
        for start, end in itertools.pairwise(cuts):
            chunk = Chunks(((start, end),), table[:, : -(-end // 16)], 16)
            tiles = [tile.block for tile in chunk.tiles]  # of the first sequence, whose tiles are its blocks
            found = prefill(case.q[start:end], case.kv, chunk, case.scale, ids[tiles], counts[tiles])
            assert torch.equal(found, whole[start:end]), (start, end)


def test_large_logits_of_selected_pages() -> None:
    for sign in (1, -1):
        case = PackedCase(k=3, own_lists=True)
        case.kv[:, :, 0] += 20.0
        case.q += sign * 8.0
        case.scale = 0.01
        assert error(prefill(*case.arguments()), case.expected()) < 3e-5  # type: ignore[arg-type]


@DTYPES
@pytest.mark.parametrize("window", [None, 1, 16, 20, 100])
@pytest.mark.parametrize("sinks", [False, True])
def test_windows_and_sinks(dtype: torch.dtype, window: int | None, sinks: bool) -> None:
    case = PackedCase(dtype, window=window, sinks=sinks)
    assert error(prefill(*case.arguments()), case.expected()) < limit(dtype)  # type: ignore[arg-type]


@DTYPES
@pytest.mark.parametrize("k", [0, 3], ids=["dense", "sparse"])
def test_bits_of_a_chunk_do_not_depend_on_its_mates(dtype: torch.dtype, k: int) -> None:
    case = PackedCase(dtype, k=k)
    spans, table = case.chunks.spans, case.chunks.table
    together = prefill(*case.arguments())  # type: ignore[arg-type]
    lengths, first = [end - start for start, end in spans], 0
    for row, (part, found) in enumerate(zip(case.q.split(lengths), together.split(lengths), strict=True)):
        alone = Chunks((spans[row],), table[row : row + 1], case.block)
        some = slice(first, first + len(alone.tiles))
        first = some.stop
        chosen = (
            () if case.page_ids is None or case.counts is None else (case.page_ids[some], case.counts[some])
        )
        assert torch.equal(prefill(part, case.kv, alone, case.scale, *chosen), found)


def test_sinks_beside_a_selection() -> None:
    case = PackedCase(k=3, sinks=True)
    assert error(prefill(*case.arguments()), case.expected()) < limit(torch.float32)  # type: ignore[arg-type]


def test_all_pages_selected_is_dense_attention() -> None:
    case = PackedCase()
    tiles = case.chunks.tiles
    ids = case.chunks.table[[tile.chunk for tile in tiles]].unsqueeze(1).repeat(1, HEADS, 1)
    counts = torch.tensor([[tile.block + 1] * HEADS for tile in tiles])
    found = prefill(case.q, case.kv, case.chunks, case.scale, ids, counts)
    torch.testing.assert_close(found, prefill(case.q, case.kv, case.chunks, case.scale))


def test_tiles_lie_in_pages() -> None:
    pack = [([7, 2, 9], 5, 40), ([4, 8, 3, 1], 16, 32), ([6], 3, 4)]
    chunks = Chunks.pack(pack, BLOCK, torch.device("cpu"))
    assert chunks.table.tolist() == [[7, 2, 9], [4, 8, 3], [6, 0, 0]]
    assert chunks.tiles == (
        Tile(chunk=0, block=0, start=5, end=16, first=0),
        Tile(chunk=0, block=1, start=16, end=32, first=11),
        Tile(chunk=0, block=2, start=32, end=40, first=27),
        Tile(chunk=1, block=1, start=16, end=32, first=35),
        Tile(chunk=2, block=0, start=3, end=4, first=51),
    )
    assert chunks.work.tolist() == [
        [index, *chunks.tiles[index]] for index in (2, 1, 3, 0, 4)
    ]  # the longest past first


def test_append_writes_only_its_slots() -> None:
    kv = torch.zeros(4, HEADS, 2, BLOCK, DIM, dtype=torch.bfloat16)
    k, v = torch.full((2, HEADS, DIM), 1.5), torch.full((2, HEADS, DIM), -2.5)
    append(k, v, kv, torch.tensor([3, 1]), torch.tensor([0, 15]))
    assert (kv[3, :, 0, 0] == 1.5).all() and (kv[3, :, 1, 0] == -2.5).all()
    assert (kv[1, :, 0, 15] == 1.5).all() and (kv[1, :, 1, 15] == -2.5).all()
    assert kv.count_nonzero() == 2 * HEADS * 2 * DIM


def test_append_of_padding_rows_to_one_slot() -> None:
    kv = torch.zeros(2, HEADS, 2, BLOCK, DIM)
    rows = torch.randn(5, HEADS, DIM)
    append(rows, rows, kv, torch.tensor([0, 0, 1, 0, 0]), torch.tensor([0, 0, 3, 0, 0]))
    assert torch.equal(kv[1, :, 0, 3], rows[2])
    assert any(torch.equal(kv[0, :, 0, 0], row) for row in rows)
