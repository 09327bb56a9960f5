"""Selection against its definition in plain Python, and its corners one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seer_ray.kernels.select import reference, select

BLOCK = 4


def chosen_blocks(scores: list[float], length: int, k: int, sink: bool, threshold: float | None) -> list[int]:
    """Blocks of one row and head, by the definition: rank, then cut."""
    blocks, complete = -(-length // BLOCK), length // BLOCK
    forced = [blocks - 1] + ([0] if sink and blocks > 1 else [])
    others = [block for block in range(complete) if block not in forced]
    others.sort(key=lambda block: -scores[block])  # stable: the earlier of two equals
    if threshold is not None and complete:
        peak = max(scores[:complete])
        total = sum(math.exp(score - peak) for score in scores[:complete])
        others = [b for b in others if math.exp(scores[b] - peak) / total > threshold]
    return sorted(forced + others[: max(0, k - len(forced))])


def table(rows: int, width: int) -> torch.Tensor:
    """Pages in no order, and none of them page 0."""
    draw = torch.Generator().manual_seed(rows)
    return 1 + torch.stack([torch.randperm(10 * width, generator=draw)[:width] for _ in range(rows)])


@st.composite
def selections(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, bool, float | None]:
    width = draw(st.integers(1, 9))
    rows, heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    # Few values, so that there are ties.
    values = draw(st.lists(st.integers(-2, 2), min_size=rows * heads * width, max_size=rows * heads * width))
    lengths = draw(st.lists(st.integers(1, width * BLOCK), min_size=rows, max_size=rows))
    k = draw(st.integers(2, 10))
    threshold = draw(st.sampled_from([None, None, 0.0, 0.05, 0.26, 1.0]))
    scores = torch.tensor(values, dtype=torch.float32).view(rows, heads, width)
    return scores, torch.tensor(lengths), k, draw(st.booleans()), threshold


@pytest.mark.parametrize("select", [select, reference], ids=["as called", "torch"])
@settings(max_examples=200)
@given(case=selections())
def test_definition(select: Any, case: tuple[torch.Tensor, torch.Tensor, int, bool, float | None]) -> None:
    scores, lengths, k, sink, threshold = case
    rows, heads, width = scores.shape
    pages = table(rows, width)
    ids, counts = select(scores, pages, lengths, BLOCK, k, sink, threshold)
    assert ids.shape == (rows, heads, min(k, width)) and ids.dtype == counts.dtype == torch.int64
    for row in range(rows):
        for head in range(heads):
            expected = chosen_blocks(scores[row, head].tolist(), int(lengths[row]), k, sink, threshold)
            count = int(counts[row, head])
            assert ids[row, head, :count].tolist() == pages[row, expected].tolist()
            assert (ids[row, head, count:] == 0).all()


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK - 1, 5 * BLOCK])
@pytest.mark.parametrize("sink", [True, False])
def test_no_more_blocks_than_the_budget_is_the_identity(length: int, sink: bool) -> None:
    pages, blocks = table(1, 7), -(-length // BLOCK)
    ids, counts = select(torch.randn(1, 2, 7), pages, torch.tensor([length]), BLOCK, 5, sink)
    assert (counts == blocks).all()
    assert torch.equal(ids[:, :, :blocks], pages[:, :blocks].expand(2, -1).unsqueeze(0))


@pytest.mark.parametrize("length", [6 * BLOCK + 1, 7 * BLOCK])
def test_the_block_of_the_current_token_is_last_and_inside_the_budget(length: int) -> None:
    pages = table(1, 9)
    scores = torch.tensor([0.0, 9, 8, 7, 6, 5, -9, 99, 99]).view(1, 1, 9)  # what is past the end scores best
    ids, counts = select(scores, pages, torch.tensor([length]), BLOCK, 3, True)
    assert counts.tolist() == [[3]]
    assert ids[0, 0].tolist() == pages[0, [0, 1, 6]].tolist()
    ids, _ = select(scores, pages, torch.tensor([length]), BLOCK, 3, False)
    assert ids[0, 0].tolist() == pages[0, [1, 2, 6]].tolist()


def test_scores_of_incomplete_blocks_do_not_matter_even_if_they_are_nan() -> None:
    scores = torch.tensor([1.0, 2, 3, 4, 0, 0]).view(1, 1, 6)
    length = torch.tensor([4 * BLOCK + 1])
    expected = select(scores, table(1, 6), length, BLOCK, 3, True, 0.01)
    scores[0, 0, 4:] = float("nan")
    found = select(scores, table(1, 6), length, BLOCK, 3, True, 0.01)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_threshold_is_capped_by_the_budget() -> None:
    scores = torch.zeros(1, 1, 8)  # each of the 7 complete blocks has a share of 1/7
    length = torch.tensor([8 * BLOCK - 1])
    assert select(scores, table(1, 8), length, BLOCK, 8, True, 0.14)[1].item() == 8
    assert select(scores, table(1, 8), length, BLOCK, 5, True, 0.14)[1].item() == 5
    assert select(scores, table(1, 8), length, BLOCK, 8, True, 0.15)[1].item() == 2


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_scores_without_a_share_are_below_every_threshold(odd: float) -> None:
    """As in the definition, whose softmax they spoil; blocks that score -inf have a share of 0."""
    scores = torch.tensor([1.0, 2, odd, 4, 3, 0, 0]).view(1, 1, 7)
    arguments = scores, table(1, 7), torch.tensor([6 * BLOCK + 1]), BLOCK, 5, True, 0.2
    ids, counts = select(*arguments)
    expected, number = reference(*arguments)
    assert torch.equal(ids, expected) and torch.equal(counts, number)
    assert counts.item() == (4 if odd == float("-inf") else 2)


def test_no_complete_block() -> None:
    for threshold in (None, 0.5):
        ids, counts = select(torch.randn(1, 1, 3), table(1, 3), torch.tensor([2]), BLOCK, 2, True, threshold)
        assert counts.tolist() == [[1]] and ids[0, 0, 0] == table(1, 3)[0, 0]


def test_a_row_does_not_depend_on_its_mates() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(16, 2, 40, generator=draw)
    lengths, pages = torch.randint(1, 40 * BLOCK, (16,), generator=draw), table(16, 40)
    for threshold in (None, 0.03):
        ids, counts = select(scores, pages, lengths, BLOCK, 6, True, threshold)
        for row in range(16):
            one = slice(row, row + 1)
            alone = select(scores[one], pages[one], lengths[one], BLOCK, 6, True, threshold)
            assert torch.equal(alone[0], ids[one]) and torch.equal(alone[1], counts[one])
