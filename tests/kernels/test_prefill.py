"""Prompt chunks: causal attention over pages equals dense attention over the whole prompt."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from seer_ray.kernels.append import append
from seer_ray.kernels.prefill import prefill

HEADS, DIM, BLOCK = 2, 32, 16


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
        out.append(prefill(q[start:end], kv, pages[: -(-end // BLOCK)], start, 0.2))
    torch.testing.assert_close(torch.cat(out), dense(q, k, v, 0.2))


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
