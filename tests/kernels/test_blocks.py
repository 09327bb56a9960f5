"""Selection of pairs of blocks, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seer_ray.kernels.blocks import Amount, listed, select_blocks, share_of


def loop(row: list[float], own: int, blocks: int, amount: Amount, sink: bool) -> set[int]:
    """One row's blocks."""
    scores, forced = row[: own + 1], {own, *([0] if sink else [])}
    peak = max(scores)
    total = sum(math.exp(score - peak) for score in scores)
    share = [math.exp(score - peak) / total for score in scores]
    ranked = sorted(range(own + 1), key=lambda i: (i not in forced, -scores[i], i))
    if amount.threshold is not None:
        return {i for i in range(own + 1) if share[i] > amount.threshold} | forced
    if amount.density is not None:
        count = max(1 + sink, round((1 - math.sqrt(1 - amount.density)) * blocks))
        return set(ranked[:count]) | forced
    chosen, before = set(forced), 0.0
    for i in ranked:
        if before >= amount.mass:
            break
        chosen.add(i)
        before += share[i]
    return chosen


amounts = st.one_of(
    st.floats(0.01, 0.99).map(lambda x: Amount(density=x)),
    st.floats(0.001, 0.5).map(lambda x: Amount(threshold=x)),
    st.floats(0.05, 0.999).map(lambda x: Amount(mass=x)),
)


@settings(max_examples=60, deadline=None)
@given(amounts, st.booleans(), st.integers(1, 12), st.integers(0, 2**16))
def test_selection_is_what_loops_say(amount: Amount, sink: bool, blocks: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, blocks, blocks, generator=draw) * 3
    own = torch.arange(blocks)
    later = own.unsqueeze(0) > own.unsqueeze(1)
    found = select_blocks(logits.masked_fill(later, float("nan")), own, blocks, amount, sink)
    for head in range(2):
        for row in range(blocks):
            wanted = loop(logits[head, row].tolist(), row, blocks, amount, sink)
            assert set(found[head, row].nonzero().flatten().tolist()) == wanted


def test_rows_of_a_part_choose_as_in_the_whole() -> None:
    logits = torch.randn(3, 20, 20)
    for amount in (Amount(density=0.3), Amount(threshold=0.08), Amount(mass=0.7)):
        whole = select_blocks(logits, torch.arange(20), 20, amount)
        part = select_blocks(logits[:, 7:12, :12], torch.arange(7, 12), 20, amount)
        assert torch.equal(part, whole[:, 7:12, :12])


@pytest.mark.parametrize("density", [0.05, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_density_is_the_share_of_the_triangle(density: float) -> None:
    blocks = 400
    keep = select_blocks(
        torch.randn(1, blocks, blocks), torch.arange(blocks), blocks, Amount(density=density)
    )
    assert keep.sum().item() / (blocks * (blocks + 1) / 2) == pytest.approx(density, abs=0.004)
    assert share_of(1.0) == 1.0 and Amount(density=density).everything == (density == 1.0)


def test_everything_is_everything() -> None:
    for amount in (Amount(density=1.0), Amount(mass=1.0)):
        keep = select_blocks(torch.randn(2, 5, 5), torch.arange(5), 5, amount)
        assert torch.equal(keep, torch.ones(5, 5).tril().bool().expand(2, -1, -1))


def test_lists_name_pages_in_order() -> None:
    keep = torch.tensor([[[True, False, True], [False, True, True]]])
    ids, counts = listed(keep, torch.tensor([7, 4, 9]))
    assert ids.tolist() == [[[7, 9, 0]], [[4, 9, 0]]] and counts.tolist() == [[2], [2]]
