"""Selection against its definition in plain Python, and its corners one by one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seer_ray.kernels.limits import Limits
from seer_ray.kernels.select import reference, select

BLOCK = 4


class Head(NamedTuple):
    """What one KV head may read."""

    k: int
    fraction: float = 0.0
    level: float = 0.0
    sharpness: float = 1.0


def chosen_blocks(scores: list[float], length: int, head: Head, sink: bool, rule: str) -> list[int]:
    """Blocks of one row and head, by the definition: rank, then cut."""
    blocks, complete = -(-length // BLOCK), length // BLOCK
    forced = [blocks - 1] + ([0] if sink and blocks > 1 else [])
    others = [block for block in range(complete) if block not in forced]
    others.sort(key=lambda block: -scores[block])  # stable: the earlier of two equals
    room = max(head.k, int(head.fraction * blocks)) - len(forced)
    if rule != "count" and complete:
        peak = max(scores[:complete])
        share = [math.exp((score - peak) * head.sharpness) for score in scores[:complete]]
        share = [term / sum(share) for term in share]
        if rule == "threshold":
            others = [block for block in others if share[block] > head.level]
        else:
            sums = [
                sum(share[block] for block in [*forced, *others[:n]] if block < complete)
                for n in range(len(others))
            ]
            others = others[: sum(part < head.level for part in sums)]
    elif rule != "count":
        others = []
    return sorted(forced + others[: max(0, room)])


def table(rows: int, width: int) -> torch.Tensor:
    """Pages in no order, and none of them page 0."""
    draw = torch.Generator().manual_seed(rows)
    return 1 + torch.stack([torch.randperm(10 * width, generator=draw)[:width] for _ in range(rows)])


@st.composite
def selections(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, list[Head], bool, str]:
    width = draw(st.integers(1, 9))
    rows, heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    # Few values, so that there are ties.
    values = draw(st.lists(st.integers(-2, 2), min_size=rows * heads * width, max_size=rows * heads * width))
    lengths = draw(st.lists(st.integers(1, width * BLOCK), min_size=rows, max_size=rows))
    rule = draw(st.sampled_from(["count", "threshold", "mass"]))
    # No sum of shares comes near these.
    levels = {
        "count": [0.0],
        "threshold": [0.0, 0.05, 0.26, 1.0],
        "mass": [0.0123, 0.377, 0.771, 0.9487],
    }
    head = st.builds(
        Head,
        st.integers(2, 10),
        st.sampled_from([0.0, 0.25, 0.625, 1.0]),
        st.sampled_from(levels[rule]),
        st.sampled_from([0.5, 1.0, 2.0]),
    )
    scores = torch.tensor(values, dtype=torch.float32).view(rows, heads, width)
    return scores, torch.tensor(lengths), [draw(head) for _ in range(heads)], draw(st.booleans()), rule


def limits_of(heads: list[Head], sink: bool, rule: str) -> Limits:
    k, fraction, level, sharpness = ([float(x) for x in column] for column in zip(*heads, strict=True))
    levels = {} if rule == "count" else {rule: level}
    return Limits.of(len(heads), k, sink, fraction=fraction, sharpness=sharpness, **levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("select", [select, reference], ids=["as called", "torch"])
@settings(max_examples=300)
@given(case=selections())
def test_definition(select: Any, case: tuple[torch.Tensor, torch.Tensor, list[Head], bool, str]) -> None:
    scores, lengths, limits, sink, rule = case
    rows, heads, width = scores.shape
    pages = table(rows, width)
    told = limits_of(limits, sink, rule)
    ids, counts = select(scores, pages, lengths, BLOCK, told)
    assert ids.shape == (rows, heads, told.width(width)) and ids.dtype == counts.dtype == torch.int64
    for row in range(rows):
        for head in range(heads):
            expected = chosen_blocks(scores[row, head].tolist(), int(lengths[row]), limits[head], sink, rule)
            count = int(counts[row, head])
            assert ids[row, head, :count].tolist() == pages[row, expected].tolist()
            assert (ids[row, head, count:] == 0).all()


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK - 1, 5 * BLOCK])
@pytest.mark.parametrize("sink", [True, False])
def test_no_more_blocks_than_the_budget_is_the_identity(length: int, sink: bool) -> None:
    pages, blocks = table(1, 7), -(-length // BLOCK)
    ids, counts = select(torch.randn(1, 2, 7), pages, torch.tensor([length]), BLOCK, Limits.of(2, 5, sink))
    assert (counts == blocks).all()
    assert torch.equal(ids[:, :, :blocks], pages[:, :blocks].expand(2, -1).unsqueeze(0))


@pytest.mark.parametrize("length", [6 * BLOCK + 1, 7 * BLOCK])
def test_the_block_of_the_current_token_is_last_and_inside_the_budget(length: int) -> None:
    pages = table(1, 9)
    scores = torch.tensor([0.0, 9, 8, 7, 6, 5, -9, 99, 99]).view(1, 1, 9)  # what is past the end scores best
    ids, counts = select(scores, pages, torch.tensor([length]), BLOCK, Limits.of(1, 3, True))
    assert counts.tolist() == [[3]]
    assert ids[0, 0].tolist() == pages[0, [0, 1, 6]].tolist()
    ids, _ = select(scores, pages, torch.tensor([length]), BLOCK, Limits.of(1, 3, False))
    assert ids[0, 0].tolist() == pages[0, [1, 2, 6]].tolist()


def test_scores_of_incomplete_blocks_do_not_matter_even_if_they_are_nan() -> None:
    scores = torch.tensor([1.0, 2, 3, 4, 0, 0]).view(1, 1, 6)
    length = torch.tensor([4 * BLOCK + 1])
    expected = select(scores, table(1, 6), length, BLOCK, Limits.of(1, 3, True, threshold=0.01))
    scores[0, 0, 4:] = float("nan")
    found = select(scores, table(1, 6), length, BLOCK, Limits.of(1, 3, True, threshold=0.01))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize(("rule", "few"), [("threshold", 0.15), ("mass", 0.14)])
def test_threshold_and_mass_are_capped_by_the_budget(rule: str, few: float) -> None:
    scores = torch.zeros(1, 1, 8)  # each of the 7 complete blocks has a share of 1/7
    length = torch.tensor([8 * BLOCK - 1])

    def count(k: int, level: float, fraction: float = 0.0) -> int:
        limits = Limits.of(1, k, True, fraction=fraction, **{rule: level})  # type: ignore[arg-type]
        return int(select(scores, table(1, 8), length, BLOCK, limits)[1])

    much = {"threshold": 0.14, "mass": 0.99}[rule]
    assert count(8, much) == 8 and count(5, much) == 5 and count(8, few) == 2
    assert count(2, much, 0.625) == 5 and count(3, much, 0.1) == 3


def test_a_mass_takes_the_fewest_blocks_and_the_earlier_of_equals() -> None:
    """Shares of 1/16, 8/16, 1/16, 4/16, 1/16, 1/16 and an open block, whose share is not known."""
    scores = torch.tensor([1.0, 8, 1, 4, 1, 1, 99]).log().view(1, 1, 7)
    pages, length = table(1, 7), torch.tensor([6 * BLOCK + 1])
    for mass, blocks in ((0.05, [0, 6]), (0.56, [0, 1, 6]), (0.8, [0, 1, 3, 6]), (0.87, [0, 1, 2, 3, 6])):
        for choose in (select, reference):
            ids, counts = choose(scores, pages, length, BLOCK, Limits.of(1, 9, True, mass=mass))
            assert ids[0, 0, : int(counts)].tolist() == pages[0, blocks].tolist()
    ids, counts = select(scores, pages, length, BLOCK, Limits.of(1, 9, False, mass=0.51))
    assert ids[0, 0, : int(counts)].tolist() == pages[0, [1, 3, 6]].tolist()


def test_all_of_the_mass_is_the_whole_budget() -> None:
    assert Limits.of(2, 5, True, mass=1.0).rule == "count"
    assert Limits.of(2, 5, True, mass=1.0).everything(5) and not Limits.of(2, 5, True, mass=0.99).everything(
        5
    )


def test_heads_have_limits_of_their_own() -> None:
    draw = torch.Generator().manual_seed(1)
    scores, length, pages = (
        torch.randn(4, 3, 20, generator=draw),
        torch.full((4,), 20 * BLOCK - 1),
        table(4, 20),
    )
    for rule in ({}, {"threshold": [0.02, 0.2, 0.04]}, {"mass": [0.5, 0.9, 0.3]}):
        limits = Limits.of(3, [4, 9, 2], True, fraction=[0.0, 0.0, 0.4], sharpness=[1.0, 0.5, 3.0], **rule)  # type: ignore[arg-type]
        ids, counts = select(scores, pages, length, BLOCK, limits)
        assert ids.shape[2] == 9
        for head in range(3):
            own = {name: levels[head] for name, levels in rule.items()}
            alone = Limits.of(
                1, (4, 9, 2)[head], True, fraction=(0, 0, 0.4)[head], sharpness=[(1.0, 0.5, 3.0)[head]], **own
            )
            one, count = select(scores[:, head : head + 1], pages, length, BLOCK, alone)
            assert torch.equal(one[:, 0], ids[:, head, : one.shape[2]]) and torch.equal(
                count[:, 0], counts[:, head]
            )


@pytest.mark.parametrize("rule", [{}, {"threshold": 0.02}, {"mass": 0.9}])
def test_early_budgets_hold_where_there_are_so_many_blocks(rule: dict[str, float]) -> None:
    limits = Limits.of(2, [5, 9], True, early=[[1, 2, 3, 2, 4], [1, 2, 3, 4, 6]], **rule)  # type: ignore[arg-type]
    assert (limits.whole, limits.least, limits.most, limits.width(4), limits.width(20)) == (3, 2, 9, 4, 9)
    length = torch.arange(1, 12) * BLOCK
    scores = torch.randn(11, 2, 11, generator=torch.Generator().manual_seed(2))
    ids, counts = select(scores, table(11, 11), length, BLOCK, limits)
    expected, number = reference(scores, table(11, 11), length, BLOCK, limits)
    assert torch.equal(ids, expected) and torch.equal(counts, number)
    budgets = [[1, 1], [2, 2], [3, 3], [2, 4], [4, 5], *([5, each] for each in (6, 7, 8, 9, 9, 9))]
    assert (counts <= torch.tensor(budgets)).all()
    assert rule or counts.tolist() == budgets


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("rule", ["threshold", "mass"])
def test_scores_without_a_share_leave_what_is_forced(odd: float, rule: str) -> None:
    """As in the definition, whose softmax they spoil; blocks that score -inf have a share of 0."""
    scores = torch.tensor([1.0, 2, odd, 4, 3, 0, 0]).view(1, 1, 7)
    level = {"threshold": 0.2, "mass": 0.9}[rule]
    limits = Limits.of(1, 5, True, **{rule: level})  # type: ignore[arg-type]
    arguments = scores, table(1, 7), torch.tensor([6 * BLOCK + 1]), BLOCK, limits
    ids, counts = select(*arguments)
    expected, number = reference(*arguments)
    assert torch.equal(ids, expected) and torch.equal(counts, number)
    assert counts.item() == (4 if odd == float("-inf") else 2)


LIMITS = [
    Limits.of(2, 6, True),
    Limits.of(2, 6, True, threshold=0.03),
    Limits.of(2, 30, True, mass=0.9, fraction=0.4),
]


def test_no_complete_block() -> None:
    for limits in LIMITS:
        ids, counts = select(torch.randn(1, 2, 3), table(1, 3), torch.tensor([2]), BLOCK, limits)
        assert counts.tolist() == [[1, 1]] and (ids[0, :, 0] == table(1, 3)[0, 0]).all()


def test_a_row_does_not_depend_on_its_mates() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(16, 2, 40, generator=draw)
    lengths, pages = torch.randint(1, 40 * BLOCK, (16,), generator=draw), table(16, 40)
    for limits in LIMITS:
        for choose in (select, reference):
            ids, counts = choose(scores, pages, lengths, BLOCK, limits)
            for row in range(16):
                one, width = slice(row, row + 1), -(-int(lengths[row]) // BLOCK)
                alone = choose(
                    scores[one, :, :width].contiguous(), pages[one, :width], lengths[one], BLOCK, limits
                )
                assert torch.equal(alone[0], ids[one, :, : alone[0].shape[2]]) and torch.equal(
                    alone[1], counts[one]
                )
