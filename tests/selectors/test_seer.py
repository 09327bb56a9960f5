"""The gate in the engine's passes: its scores from pages are the gate's own on the same keys."""

from __future__ import annotations

import pytest
import torch

from seer_ray.config.options import SelectorConfig
from seer_ray.engine.cache import PagedCache
from seer_ray.engine.groups import page_groups
from seer_ray.engine.passes import DecodePass, Decoder, Part, PrefillPass
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.models.plan import resolve_plan
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention
from seer_ray.selectors.base import Query
from seer_ray.selectors.seer import Seer

HEADS, GROUP, DIM, BLOCK, PAGES = 2, 3, 16, 16, 8
SHAPE = AttentionShape(1, HEADS * GROUP, HEADS, DIM, ("attention",))


def make(scaling: float) -> tuple[Decoder, AttnGate]:
    torch.manual_seed(0)
    gate = AttnGate(
        num_query_heads=HEADS * GROUP,
        num_kv_heads=HEADS,
        head_dim=DIM,
        gate_dim=8,
        block_size=BLOCK,
        rope_theta=10_000.0,
    ).requires_grad_(False)
    selectors = [Seer(gate)]
    plan = resolve_plan(SelectorConfig(name="seer", budget=3 * BLOCK), SHAPE.mixers, BLOCK)
    device = torch.device("cpu")
    groups = page_groups(SHAPE, plan)
    cache = PagedCache(
        SHAPE, groups, list(selectors), [2 * PAGES + 1], BLOCK, 2, PAGES, torch.float32, device
    )
    for kv, summary in zip(cache.kv, cache.summary, strict=True):
        assert kv is not None and summary is not None
        kv[1:] = float("nan")
        summary[1:] = float("nan")
    cache.tables[0][:] = 1 + torch.randperm(2 * PAGES).view(2, PAGES)
    rope = RopeTable(RopeTable.from_theta(10_000.0, DIM).inv_freq, scaling, BLOCK * PAGES)
    return Decoder(cache, [rope], plan, list(selectors)), gate


@pytest.mark.parametrize("scaling", [1.0, 1.2], ids=["plain", "yarn"])
@pytest.mark.parametrize("prompt", [1, 2 * BLOCK, 3 * BLOCK + 5])
def test_scores_from_pages(prompt: int, scaling: float) -> None:
    """Pages that fill in prefill and pages that fill in decode, in two rows of different lengths."""
    decoder, gate = make(scaling)
    length = PAGES * BLOCK
    q = torch.randn(2, length, HEADS * GROUP, DIM)
    k, v = torch.randn(2, length, HEADS, DIM), torch.randn(2, length, HEADS, DIM)
    table = decoder.cache.tables[0].tolist()
    starts = [prompt, prompt + BLOCK + 3]
    chunks = [Part([table[row]], 0, end) for row, end in enumerate(starts)]
    packed = [torch.cat([x[row, :end] for row, end in enumerate(starts)]) for x in (q, k, v)]
    PrefillPass(decoder, chunks, torch.device("cpu")).attend(
        0, Attention(packed[0], packed[1], packed[2], 0.25)
    )

    selector, summary = decoder.selectors[0], decoder.cache.summary[0]
    assert selector is not None and summary is not None
    for step in range(length - starts[1]):
        positions = [start + step for start in starts]
        completed = [
            (table[row][at // BLOCK], at // BLOCK * BLOCK)
            for row, at in enumerate(positions)
            if (at + 1) % BLOCK == 0
        ]
        view = DecodePass(decoder, decoder.cache.tables, positions, completed)
        rows, at = torch.arange(2), torch.tensor(positions)
        out = view.attend(0, Attention(q[rows, at], k[rows, at], v[rows, at], 0.25))
        assert out.isfinite().all()
        query = Query(q[rows, at], q[rows, at], decoder.cache.kv[0], summary, 0.25)
        found = selector.scores(query, view.view)
        for row in rows.tolist():
            complete = (positions[row] + 1) // BLOCK
            compressed = gate.compress_keys(k[row : row + 1])[:, :complete]
            expected = gate.score(q[row, at[row]].unsqueeze(0), at[row : row + 1], compressed)[0]
            torch.testing.assert_close(found[row, :, :complete], expected, rtol=1e-4, atol=1e-4)
