"""What must hold of the Triton kernel of ``prefill``, on any device; see ``triton_checks``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from packed_case import PackedCase
from paged_case import error, limit

from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.quantise import TOP
from seer_ray.kernels.triton_prefill import prefill


def prefill_is_its_definition(device: str, dtype: torch.dtype, **shape: Any) -> None:
    """NaN where nothing was written and, with a selection, in all that it leaves out."""
    case = PackedCase(dtype, device=device, **shape)
    found = prefill(*case.arguments())  # type: ignore[arg-type]
    assert found.dtype == dtype and found.shape == case.q.shape
    assert error(found, case.expected()) < limit(dtype)


def prefill_identity_is_dense(device: str, dtype: torch.dtype, **shape: Any) -> None:
    """Lists of all pages, written out for each tile and head: bit for bit the dense result."""
    case = PackedCase(dtype, device=device, **shape)
    heads, tiles = case.kv.shape[1], case.chunks.tiles
    ids = case.chunks.table[[tile.chunk for tile in tiles]].unsqueeze(1).repeat(1, heads, 1)
    counts = torch.tensor([[tile.block + 1] * heads for tile in tiles], device=device)
    dense = prefill(case.q, case.kv, case.chunks, case.scale)
    assert dense.isfinite().all()
    assert torch.equal(prefill(case.q, case.kv, case.chunks, case.scale, ids, counts), dense)


def prefill_chunks_stand_alone(device: str, dtype: torch.dtype, **shape: Any) -> None:
    """Bit for bit: every chunk alone, in a table no wider than it needs, and all in reverse order."""
    case = PackedCase(dtype, device=device, **shape)
    spans, table, block = case.chunks.spans, case.chunks.table, case.block
    together = prefill(*case.arguments())  # type: ignore[arg-type]
    lengths = [end - start for start, end in spans]
    parts, results = case.q.split(lengths), together.split(lengths)
    for row, span in enumerate(spans):
        alone = Chunks((span,), table[row : row + 1, : -(-span[1] // block)], block)
        assert torch.equal(
            prefill(parts[row], case.kv, alone, case.scale, *_tiles_of(case, [row])), results[row]
        )
    back = list(range(len(spans)))[::-1]
    turned = Chunks(tuple(spans[row] for row in back), table[back], block)
    q = torch.cat([parts[row] for row in back])
    found = prefill(q, case.kv, turned, case.scale, *_tiles_of(case, back))
    assert torch.equal(found, torch.cat([results[row] for row in back]))


def _tiles_of(case: PackedCase, rows: list[int]) -> tuple[torch.Tensor, ...]:
    """The selections of some chunks."""
    if case.page_ids is None or case.counts is None:
        return ()
    index = [i for row in rows for i, tile in enumerate(case.chunks.tiles) if tile.chunk == row]
    return case.page_ids[index], case.counts[index]


def prefill_cuts_do_not_matter(
    device: str, dtype: torch.dtype, length: int, cuts: tuple[tuple[int, ...], ...], **shape: Any
) -> None:
    """A prompt in one chunk or in several, at any places, one after the other with what comes later not
    written yet, or in one pack: the same bits."""
    case = PackedCase(dtype, spans=((0, length), (3, 50)), device=device, **shape)
    table, block = case.chunks.table[:1], case.block
    pages = table[0, : -(-length // block)]
    whole = prefill(case.q, case.kv, case.chunks, case.scale)[:length]
    assert whole.isfinite().all()
    for inner in cuts:
        spans = tuple(pairwise((0, *inner, length)))
        packed = Chunks(spans, table.expand(len(spans), -1), block)
        assert torch.equal(prefill(case.q[:length], case.kv, packed, case.scale), whole), spans
        for start, end in spans:
            kv = case.kv.clone()
            written = torch.arange(len(pages) * block, device=device).view(-1, 1, 1, block, 1) < end
            kv[pages] = torch.where(written, kv[pages], float("nan"))
            chunk = Chunks(((start, end),), table[:, : -(-end // block)], block)
            found = prefill(case.q[start:end], kv, chunk, case.scale)
            assert torch.equal(found, whole[start:end]), (start, end)


def prefill_large_and_equal_logits(device: str, dtype: torch.dtype, **shape: Any) -> None:
    for sign in (1, -1):
        case = PackedCase(dtype, device=device, **shape)
        direction = torch.nn.functional.normalize(torch.ones(case.dim, device=device), dim=0)
        case.kv[:, :, 0] += (20 * direction).to(dtype)
        case.q += (sign * 8 * direction).to(dtype)
        largest = case.q.float().norm(dim=-1).max() * case.kv[:, :, 0].float().nan_to_num().norm(dim=-1).max()
        case.scale = 80.0 / float(largest)
        found = prefill(*case.arguments())  # type: ignore[arg-type]
        # The last bit of an fp32 logit is worth 8e-6 there.
        assert error(found, case.expected()) < (3e-5 if dtype == torch.float32 else limit(dtype))
    case = PackedCase(dtype, device=device, **shape)
    case.q.zero_()
    assert error(prefill(*case.arguments()), case.expected()) < limit(dtype)  # type: ignore[arg-type]


def prefill_offsets_beyond_32_bits(device: str) -> None:
    """A cache of 2.6e9 numbers, of which the last pages are read."""
    pages, heads, block, dim = 20_000, 8, 64, 128
    spans = ((100, 300), (0, 70))
    case = PackedCase(torch.bfloat16, spans, heads=heads, group=4, dim=dim, block=block, device=device)
    kv = torch.zeros(pages, heads, 2, block, dim, dtype=torch.bfloat16, device=device)
    assert kv.numel() > 2**31
    shift = pages - len(case.kv)
    kv[shift:] = case.kv
    moved = Chunks(spans, case.chunks.table + shift, block)
    expected = prefill(*case.arguments())  # type: ignore[arg-type]
    assert torch.equal(prefill(case.q, kv, moved, case.scale), expected)


def gpu_cases() -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Checks at a GPU's sizes: function, arguments after the device."""
    spans = ((0, 700), (1000, 1513), (4000, 4001), (127, 129))
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for k in (0, 9):
            for dim in (64, 80, 96, 128, 256):
                shape = {"spans": spans, "k": k, "dim": dim, "block": 64, "group": 4}
                yield prefill_is_its_definition, (dtype,), shape
            for group in (1, 2, 3, 5, 8, 16):
                shape = {"spans": spans, "k": k, "dim": 128, "block": 64, "group": group}
                yield prefill_is_its_definition, (dtype,), shape
            for block in (16, 32, 128):
                shape = {"spans": spans, "k": k, "dim": 128, "block": block, "group": 4}
                yield prefill_is_its_definition, (dtype,), shape
                yield prefill_chunks_stand_alone, (dtype,), shape
        for group, dim in ((4, 64), (3, 128), (8, 128)):
            shape = {"spans": spans, "k": 9, "dim": dim, "block": 64, "group": group, "own_lists": True}
            yield prefill_is_its_definition, (dtype,), shape
            yield prefill_chunks_stand_alone, (dtype,), shape
        for block in (16, 64):
            shape = {"dim": 128, "block": block, "group": 4}
            yield prefill_identity_is_dense, (dtype,), shape | {"spans": spans}
            cuts = ((1,), (64, 512), (63, 65, 500), (999,))
            yield prefill_cuts_do_not_matter, (dtype, 1000, cuts), shape
            yield prefill_large_and_equal_logits, (dtype,), shape | {"spans": spans}
    for kept, k in itertools.product(TOP, (0, 9)):
        for dim, block in ((64, 16), (80, 32), (128, 64), (256, 128)):
            shape = {"spans": spans, "k": k, "dim": dim, "block": block, "group": 4, "kv_dtype": kept}
            yield prefill_is_its_definition, (torch.bfloat16,), shape
            yield prefill_chunks_stand_alone, (torch.bfloat16,), shape
    yield prefill_offsets_beyond_32_bits, (), {}
