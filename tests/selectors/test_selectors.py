"""Each selector's scores against its definition, on paged keys."""

from __future__ import annotations

import pytest
import torch

from seer_ray.kernels.limits import Limits
from seer_ray.kernels.rotary import rotate
from seer_ray.kernels.select import select
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import FullKeys, Query, StepView
from seer_ray.selectors.oracle import Oracle
from seer_ray.selectors.quest import Quest
from seer_ray.selectors.random import Random
from seer_ray.selectors.window import Window

ROWS, HEADS, GROUP, DIM, BLOCK, WIDTH = 3, 2, 4, 32, 16, 6
LENGTHS = torch.tensor([5, 3 * BLOCK, WIDTH * BLOCK - 1])
SCALE = 0.25


class Paged:
    """Random rotated keys of three sequences on pages in no order."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.table = 1 + torch.randperm(ROWS * WIDTH, generator=draw).view(ROWS, WIDTH)
        self.view = StepView(LENGTHS - 1, LENGTHS, self.table, BLOCK)
        rope = RopeTable.from_theta(10_000.0, DIM)
        k_nope = torch.randn(ROWS, WIDTH * BLOCK, HEADS, DIM, generator=draw)
        self.k = rope.rotate(k_nope, torch.arange(WIDTH * BLOCK).expand(ROWS, -1))
        self.q_nope = 2 * torch.randn(ROWS, HEADS * GROUP, DIM, generator=draw)
        self.cos, self.sin = rope.at(LENGTHS - 1)
        self.q = rotate(self.q_nope, self.cos, self.sin)
        self.kv = torch.full((1 + ROWS * WIDTH, HEADS, 2, BLOCK, DIM), 1e3)  # unwritten: large, if it is read
        for row in range(ROWS):
            for token in range(int(LENGTHS[row])):
                self.kv[self.table[row, token // BLOCK], :, 0, token % BLOCK] = self.k[row, token]

    def logits(self, row: int) -> torch.Tensor:
        """Of every query head with every token, float64 ``[HEADS, GROUP, tokens]``, scale included."""
        q = self.q[row].double().view(HEADS, GROUP, DIM)
        k = self.k[row, : int(LENGTHS[row])].double()
        return torch.einsum("hgd,thd->hgt", q, k) * SCALE


@pytest.fixture(scope="module")
def paged() -> Paged:
    return Paged()


def quest_scores(paged: Paged) -> torch.Tensor:
    quest = Quest(DIM, HEADS)
    first = torch.zeros(len(paged.kv), dtype=torch.int64)
    summary = quest.summarise(FullKeys(paged.kv[:, :, 0], paged.cos, paged.sin, first))
    assert summary.shape == (len(paged.kv), HEADS, quest.summary_width)
    return quest.scores(Query(paged.q_nope, paged.q, paged.kv, summary, SCALE), paged.view)


def test_quest_bounds_every_logit_of_the_block(paged: Paged) -> None:
    scores = quest_scores(paged)
    for row in range(ROWS):
        for block in range(int(LENGTHS[row]) // BLOCK):
            logits = paged.logits(row)[:, :, block * BLOCK : (block + 1) * BLOCK]
            assert (logits.amax(dim=(1, 2)) <= scores[row, :, block] + 1e-5).all()


def test_quest_is_the_best_corner_of_the_box(paged: Paged) -> None:
    scores = quest_scores(paged)
    for row in range(ROWS):
        for block in range(int(LENGTHS[row]) // BLOCK):
            k = paged.k[row, block * BLOCK : (block + 1) * BLOCK]  # [BLOCK, HEADS, DIM]
            q = paged.q[row].view(HEADS, GROUP, DIM)
            corner = torch.maximum(q * k.amax(0).unsqueeze(1), q * k.amin(0).unsqueeze(1)).sum(-1)
            torch.testing.assert_close(scores[row, :, block], corner.amax(1) * SCALE)


def test_oracle_is_the_largest_probability_of_the_block(paged: Paged) -> None:
    scores = Oracle().scores(Query(paged.q_nope, paged.q, paged.kv, None, SCALE), paged.view)
    for row in range(ROWS):
        p = torch.softmax(paged.logits(row), dim=-1).amax(1)
        for block in range(int(LENGTHS[row]) // BLOCK):
            expected = p[:, block * BLOCK : (block + 1) * BLOCK].amax(-1)
            torch.testing.assert_close(scores[row, :, block].exp().double(), expected, rtol=1e-4, atol=0)


def test_oracle_does_not_look_behind_the_last_page() -> None:
    """The page table may hold anything there."""
    paged = Paged()
    expected = Oracle().scores(Query(paged.q_nope, paged.q, paged.kv, None, SCALE), paged.view)
    paged.table[0, 1:] = 2**50
    found = Oracle().scores(Query(paged.q_nope, paged.q, paged.kv, None, SCALE), paged.view)
    assert torch.equal(found, expected)


def test_threshold_of_the_oracle_is_a_share_of_the_block_maxima(paged: Paged) -> None:
    scores = Oracle().scores(Query(paged.q_nope, paged.q, paged.kv, None, SCALE), paged.view)
    _, counts = select(
        scores, paged.table, LENGTHS, BLOCK, Limits.of(scores.shape[1], WIDTH, False, threshold=0.3)
    )
    row = 2
    complete = int(LENGTHS[row]) // BLOCK
    p = torch.softmax(paged.logits(row), dim=-1)[:, :, : complete * BLOCK]
    best = p.view(HEADS, GROUP, complete, BLOCK).amax(dim=(1, 3))
    kept = (best / best.sum(-1, keepdim=True) > 0.3).sum(-1)
    assert 0 < kept.sum() < HEADS * complete  # else this shows nothing
    assert counts[row].tolist() == (kept + 1).tolist()  # and the open block


def test_window_is_the_sink_and_the_most_recent_blocks(paged: Paged) -> None:
    scores = Window(HEADS).scores(Query(paged.q_nope, paged.q, paged.kv, None, SCALE), paged.view)
    ids, _ = select(scores, paged.table, LENGTHS, BLOCK, Limits.of(scores.shape[1], 3, True))
    assert ids[2].tolist() == [paged.table[2, [0, 4, 5]].tolist()] * HEADS
    ids, _ = select(scores, paged.table, LENGTHS, BLOCK, Limits.of(scores.shape[1], 3, False))
    assert ids[2].tolist() == [paged.table[2, [3, 4, 5]].tolist()] * HEADS


def random_scores(positions: torch.Tensor, layer: int, width: int) -> torch.Tensor:
    table = torch.zeros(len(positions), width, dtype=torch.int64)
    view = StepView(positions, positions + 1, table, BLOCK)
    empty = torch.empty(0)
    return Random(HEADS, layer).scores(Query(empty, empty, empty, None, SCALE), view)


def test_random_is_a_function_of_position_layer_head_and_block() -> None:
    positions = torch.tensor([7, 900, 7])
    scores = random_scores(positions, 3, 20)
    assert torch.equal(scores[0], scores[2])
    assert torch.equal(random_scores(positions[1:2], 3, 12), scores[1:2, :, :12])
    for other in (scores[1], random_scores(positions[:1], 4, 20)[0], scores[0].flip(0)):
        assert not torch.equal(scores[0].argsort(-1), other.argsort(-1))


def test_random_prefers_no_block() -> None:
    """How often each of 16 blocks is among the best 4: chi-square with 15 degrees of freedom."""
    best = random_scores(torch.arange(2000), 0, 16).topk(4).indices
    found = torch.bincount(best.flatten(), minlength=16).double()
    expected = found.sum() / 16
    # 37.7 is exceeded once in a thousand; draws without replacement spread less.
    assert ((found - expected) ** 2 / expected).sum() < 37.7
    assert len({tuple(sorted(row)) for row in best[:, 0].tolist()}) > 1000  # of 1820 sets
