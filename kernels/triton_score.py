"""Scores of blocks in Triton: ``score`` on a GPU.

A matrix-vector product in fp32 without tensor cores, which would compute sixteen rows to use one. A program
scores ``CHUNK`` blocks of one row and KV head; a block's sum has one order whatever stands beside it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.launch import power_of_two

CHUNK = 32
WARPS = 4


def score(
    features: torch.Tensor, summary: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int
) -> torch.Tensor:
    """See ``kernels.score``. Allocates its result from torch's caching allocator."""
    return _score(features, summary, page_table, lengths, block, None)


def bound(
    q: torch.Tensor,
    summary: torch.Tensor,
    page_table: torch.Tensor,
    lengths: torch.Tensor,
    block: int,
    scale: float,
) -> torch.Tensor:
    """See ``kernels.score``. Allocates its result from torch's caching allocator."""
    return _score(q, summary, page_table, lengths, block, scale)


def _score(
    features: torch.Tensor,
    summary: torch.Tensor,
    page_table: torch.Tensor,
    lengths: torch.Tensor,
    block: int,
    scale: float | None,
) -> torch.Tensor:
    """``scale``: of a bound; None: features are vectors to be multiplied with."""
    rows, heads, vectors, width = features.shape
    pages = page_table.shape[1]
    features = features.contiguous()
    out = torch.empty(rows, heads, pages, dtype=torch.float32, device=features.device)
    score_chunk[(triton.cdiv(pages, CHUNK), heads, rows)](
        features,
        summary,
        page_table,
        lengths,
        out,
        pages,
        page_table.stride(0),
        lengths.stride(0),
        1.0 if scale is None else scale,
        VECTORS=vectors,
        WIDTH=width,
        WIDTH_PADDED=power_of_two(width),
        BOUND=scale is not None,
        BLOCK=block,
        CHUNK=CHUNK,
        num_warps=WARPS,
    )
    return out


@triton.jit(do_not_specialize=["pages", "table_row", "lengths_row"])
def score_chunk(
    features_ptr,
    summary_ptr,
    table_ptr,
    lengths_ptr,
    out_ptr,
    pages,
    table_row,
    lengths_row,
    scale,
    VECTORS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
    BOUND: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    chunk = tl.program_id(0)
    head = tl.program_id(1)
    heads = tl.num_programs(1)
    row = tl.program_id(2).to(tl.int64)
    length = tl.load(lengths_ptr + row * lengths_row).to(tl.int32)
    complete = tl.minimum(length // BLOCK, pages)
    if chunk * CHUNK >= complete:
        return
    index = chunk * CHUNK + tl.arange(0, CHUNK)
    live = index < complete
    channel = tl.arange(0, WIDTH_PADDED)
    inside = channel < WIDTH
    page = tl.load(table_ptr + row * table_row + index, mask=live, other=0).to(tl.int64)
    halves: tl.constexpr = 2 if BOUND else 1
    at = summary_ptr + ((page * heads + head) * (halves * WIDTH))[:, None] + channel[None, :]
    mask = live[:, None] & inside[None, :]
    keys = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    if BOUND:
        least = tl.load(at + WIDTH, mask=mask, other=0.0).to(tl.float32)
    features_ptr += (row * heads + head) * (VECTORS * WIDTH)
    best = tl.full([CHUNK], float("-inf"), tl.float32)
    for vector in range(VECTORS):
        query = tl.load(features_ptr + vector * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
        if BOUND:
            query *= scale
            products = keys * tl.maximum(query, 0.0)[None, :] + least * tl.minimum(query, 0.0)[None, :]
        else:
            products = keys * query[None, :]
        best = tl.maximum(best, tl.sum(products, 1))
    tl.store(out_ptr + (row * heads + head) * pages + index, best, mask=live)
