"""What must hold of the Triton kernels, on any device: small on the CPU (interpreted), larger on a GPU.

Every check raises AssertionError. No pytest here: a GPU machine may have none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal
from unittest.mock import patch

import torch
from paged_case import Case, error, kept_as, limit
from prefill_checks import gpu_cases as prefill_cases
from row_checks import (
    add_norm_is_its_definition,
    bound_is_its_definition,
    norms_before_rotation,
    silu_product_is_its_definition,
)
from span_case import SpanCase

from seer_ray.kernels import attend as attend_module
from seer_ray.kernels import gpu, triton_append, triton_attend, triton_score, triton_select, triton_target
from seer_ray.kernels import score as score_module
from seer_ray.kernels import select as select_module
from seer_ray.kernels import target as target_module
from seer_ray.kernels.append import append
from seer_ray.kernels.limits import Limits
from seer_ray.kernels.quantise import KV, TOP
from seer_ray.kernels.rotary import rotate
from seer_ray.models.gate import AttnGate
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import CurrentPages, Query, Selector, StepView
from seer_ray.selectors.quest import Quest
from seer_ray.selectors.seer import Seer

# -- attend ----------------------------------------------------------------------------------------------


def attend_is_its_definition(device: str, dtype: torch.dtype, **shape: int) -> None:
    """NaN where nothing was written, garbage in unused slots, counts from 1, tails from 1, shared pages."""
    case = Case(dtype, device=device, **shape)
    assert error(triton_attend.attend(*case.arguments()), case.expected()) < limit(dtype)  # type: ignore[arg-type]


def attend_gives_zeros_without_pages(device: str, dtype: torch.dtype, **shape: int) -> None:
    case = Case(dtype, device=device, **shape)
    before = triton_attend.attend(*case.arguments())  # type: ignore[arg-type]
    case.counts[1] = 0
    after = triton_attend.attend(*case.arguments())  # type: ignore[arg-type]
    others = [row for row in range(case.q.shape[0]) if row != 1]
    assert (after[1] == 0).all()
    assert torch.equal(after[others], before[others])


def attend_spans(device: str, dtype: torch.dtype, window: int | None = None, **shape: int) -> None:
    """Rows with several queries, as the definition has them; and the bits of rows of their own."""
    case = SpanCase(dtype, **shape, device=device)
    found = case.together(triton_attend.attend, sinks=True, window=window)
    assert error(found, case.together(attend_module.reference, True, window).double()) < limit(dtype)
    assert torch.equal(case.together(triton_attend.attend, True, window), found)
    assert (found[-2:] == 0).all()


def attend_rows_stand_alone(device: str, dtype: torch.dtype, **shape: int) -> None:
    """Bit for bit: in another order, alone, and in a table no wider than the row."""
    case = Case(dtype, device=device, **shape)
    rows = case.q.shape[0]
    together = triton_attend.attend(*case.arguments())  # type: ignore[arg-type]
    assert torch.equal(triton_attend.attend(*case.arguments()), together)  # type: ignore[arg-type]
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).to(device)
    assert torch.equal(triton_attend.attend(*case.rows(order)), together[order])  # type: ignore[arg-type]
    for row in range(rows):
        width = int(case.counts[row].max())
        one = torch.tensor([row], device=device)
        alone = triton_attend.attend(*case.rows(one, width))  # type: ignore[arg-type]
        assert torch.equal(alone, together[row : row + 1])


def attend_order_is_rounding(device: str, dtype: torch.dtype, **shape: int) -> None:
    """The full pages in another order: the same sum."""
    case = Case(dtype, device=device, **shape)
    expected = case.expected()
    for row in range(case.q.shape[0]):
        for head in range(case.kv.shape[1]):
            full = int(case.counts[row, head]) - 1
            case.page_ids[row, head, :full] = case.page_ids[row, head, :full].flip(0)
    assert error(triton_attend.attend(*case.arguments()), expected) < limit(dtype)  # type: ignore[arg-type]


def attend_large_and_equal_logits(device: str, dtype: torch.dtype, **shape: int) -> None:
    for sign in (1, -1):
        case = Case(dtype, device=device, **shape)
        direction = torch.nn.functional.normalize(torch.ones(case.dim, device=device), dim=0)
        case.kv[:, :, 0] += (20 * direction).to(dtype)
        case.q += (sign * 8 * direction).to(dtype)
        queries = case.q.float().unflatten(1, (-1, case.group))
        logits = torch.einsum("rhgd,phtd->rhgpt", queries, case.kv[:, :, 0].float().nan_to_num())
        case.scale = 80.0 / float(logits.abs().max())
        found = triton_attend.attend(*case.arguments())  # type: ignore[arg-type]
        # The last bit of an fp32 logit is worth 8e-6 there.
        assert error(found, case.expected()) < (3e-5 if dtype == torch.float32 else limit(dtype))
    case = Case(dtype, device=device, **shape)
    case.q.zero_()
    assert error(triton_attend.attend(*case.arguments()), case.expected()) < limit(dtype)  # type: ignore[arg-type]


def attend_identity_is_dense(device: str, dtype: torch.dtype, **shape: int) -> None:
    """A page table seen by all heads: bit for bit what a written-out list of the same pages gives."""
    case = Case(dtype, device=device, **shape)
    rows, heads = case.counts.shape
    pages = int(case.counts[:, 0].max())
    counts = case.counts[:, :1]
    table = torch.zeros(rows, pages + 37, dtype=torch.int64, device=device)
    for row in range(rows):
        table[row, : int(counts[row])] = case.page_ids[row, 0, : int(counts[row])]
    case.kv[:] = torch.randn(case.kv.shape, generator=torch.Generator().manual_seed(1)).to(case.kv)
    dense = triton_attend.attend(
        case.q, case.kv, table.unsqueeze(1).expand(-1, heads, -1), counts.expand(-1, heads), case.tails, 0.2
    )
    listed = table[:, :pages].unsqueeze(1).repeat(1, heads, 1)
    chosen = triton_attend.attend(case.q, case.kv, listed, counts.repeat(1, heads), case.tails, 0.2)
    assert torch.equal(dense, chosen)
    case.page_ids, case.counts, case.scale = listed, counts.repeat(1, heads), 0.2
    assert error(dense, case.expected()) < limit(dtype)


# -- score -----------------------------------------------------------------------------------------------


def score_is_its_definition(
    device: str, dtype: torch.dtype, vectors: int, dim: int, rows: int = 4, heads: int = 2, width: int = 40
) -> None:
    """Garbage in the page table past a row's end, NaN in all summaries that are not named; rows alone."""
    block = 16
    draw = torch.Generator().manual_seed(vectors)
    features = torch.randn(rows, heads, vectors, dim, generator=draw).to(device)
    summary = torch.randn(3 * width, heads, dim, generator=draw).to(dtype).to(device)
    table = torch.randint(1, 2 * width, (rows, width), generator=draw).to(device)
    lengths = torch.randint(1, width * block, (rows,), generator=draw)
    lengths[:3] = torch.tensor([1, width * block, 5 * block])
    lengths = lengths.to(device)
    complete = torch.arange(width, device=device) < (lengths // block).unsqueeze(1)
    expected = score_module.reference(features.double(), summary.double(), table, lengths, block)
    named = torch.where(complete, table, 0).unique()
    unnamed = torch.ones(len(summary), dtype=torch.bool, device=device)
    unnamed[named] = False
    summary[unnamed] = float("nan")
    table = torch.where(complete, table, 2**50)
    found = triton_score.score(features, summary, table, lengths, block)
    assert found.dtype == torch.float32
    ok = complete.unsqueeze(1)
    torch.testing.assert_close(
        torch.where(ok, found, 0), torch.where(ok, expected, 0).float(), rtol=1e-5, atol=3e-5
    )
    for row in range(rows):
        one, short = slice(row, row + 1), max(1, int(lengths[row]) // block)
        alone = triton_score.score(features[one], summary, table[one, :short], lengths[one], block)
        ok = complete[one, :short].unsqueeze(1)
        assert torch.equal(torch.where(ok, alone, 0), torch.where(ok, found[one, :, :short], 0))


# -- select ----------------------------------------------------------------------------------------------


def select_is_its_definition(device: str, seed: int, width: int, trials: int = 10) -> None:
    """Exactly: ties, both zeros, denormal numbers, -inf, any rule, short rows, sinks, any k of each head."""
    draw = torch.Generator().manual_seed(seed)
    block = 4

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    for trial in range(trials):
        rows, heads, wide = number(1, 4), number(1, 3), number(max(1, width // 2), width + 1)
        scores = torch.randn(rows, heads, wide, generator=draw)
        if trial % 2:
            kinds = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 2.0, float("-inf")])
            scores = kinds[torch.randint(0, len(kinds), scores.shape, generator=draw)]
        if trial % 5 == 3:
            scores = torch.full_like(scores, 0.0 if trial % 2 else float("-inf"))
        lengths = torch.randint(1, wide * block + 1, (rows,), generator=draw)
        lengths[0] = (wide * block, 1, block, wide * block - 1)[trial % 4]
        table = 1 + torch.stack([torch.randperm(2 * wide, generator=draw)[:wide] for _ in range(rows)])
        k, sink = [number(2, max(3, min(wide + 2, 70))) for _ in range(heads)], bool(number(0, 2))
        grown, sharp = (0.0, 0.4, 0.7)[trial % 3], [1.0, 0.37, 2.5][:heads]
        rules: tuple[dict[str, float], ...] = (
            *({}, {"mass": 0.927}, {"threshold": 0.013}, {}),
            *({"mass": 0.513}, {"threshold": 0.3}, {}, {"threshold": 0.0}),
        )
        rule = rules[(trial + seed) % len(rules)]
        incomplete = torch.arange(wide) >= (lengths // block).view(-1, 1, 1)
        early = (
            [[min(there, number(2, 9)) for there in range(1, 8)] for _ in range(heads)] if trial % 2 else None
        )
        limits = Limits.of(heads, k, sink, fraction=grown, sharpness=sharp, early=early, **rule)  # type: ignore[arg-type]
        select_agrees(device, scores, incomplete, table, lengths, block, limits)


def select_agrees(
    device: str,
    scores: torch.Tensor,
    incomplete: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    block: int,
    limits: Limits,
) -> None:
    """With the definition, and NaN in all that must not be read."""
    expected_ids, expected = select_module.reference(scores, table, lengths, block, limits)
    moved = [scores.masked_fill(incomplete, float("nan")), table, lengths]
    there = replace(limits, table=limits.table.to(device))
    ids, counts = triton_select.select(*(x.to(device) for x in moved), block, there)
    assert torch.equal(counts.cpu(), expected), (limits, counts, expected)
    assert torch.equal(ids.cpu(), expected_ids), (limits, ids, expected_ids)


def select_shares_nothing_where_scores_are_odd(device: str, width: int) -> None:
    """NaN or inf in one place: what is forced, as in the definition."""
    table, length = 1 + torch.arange(width).unsqueeze(0), torch.tensor([4 * width - 1])
    for odd in (float("nan"), float("inf")):
        scores = torch.zeros(1, 1, width)
        scores[0, 0, width // 2] = odd
        for rule in ({"threshold": 0.001}, {"mass": 0.9}):
            limits = Limits.of(1, 5, True, **rule)  # type: ignore[arg-type]
            select_agrees(
                device, scores, torch.zeros(1, 1, width, dtype=torch.bool), table, length, 4, limits
            )


def select_forces_against_infinite_scores(device: str, width: int) -> None:
    scores = torch.full((1, 1, width), float("inf"), device=device)
    table = 1 + torch.arange(width, device=device).flip(0).unsqueeze(0)
    length = torch.tensor([4 * width - 1], device=device)
    ids, counts = triton_select.select(scores, table, length, 4, Limits.of(1, 5, True, device=device))
    assert counts.item() == 5
    assert ids[0, 0].tolist() == table[0, [0, 1, 2, 3, width - 1]].tolist()


def select_rows_stand_alone(device: str, width: int, rows: int = 6) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(rows, 2, width, generator=draw).to(device)
    lengths = torch.randint(1, 4 * width, (rows,), generator=draw).to(device)
    table = 1 + torch.stack([torch.randperm(width, generator=draw) for _ in range(rows)]).to(device)
    for rule in ({}, {"threshold": 0.01}, {"mass": 0.9, "fraction": 0.3}):
        limits = Limits.of(2, 7, True, **rule, device=device)  # type: ignore[arg-type]
        ids, counts = triton_select.select(scores, table, lengths, 4, limits)
        for row in range(rows):
            one = slice(row, row + 1)
            short = -(-int(lengths[row]) // 4)
            alone = triton_select.select(scores[one, :, :short], table[one, :short], lengths[one], 4, limits)
            assert torch.equal(alone[0], ids[one, :, : alone[0].shape[2]])
            assert torch.equal(alone[1], counts[one])


# -- append ----------------------------------------------------------------------------------------------


def append_is_its_definition(
    device: str,
    dtype: torch.dtype,
    dim: int,
    group: int,
    tokens: int = 4,
    kv_dtype: torch.dtype | None = None,
) -> None:
    """Bit for bit, in the slots named and nowhere else; strided inputs; padding rows share the dummy page."""
    heads, block = 2, 16
    draw = torch.Generator().manual_seed(dim)
    mixed = torch.randn(tokens, (group + 2) * heads * dim, generator=draw).to(dtype).to(device)
    q, k, v = (
        x.view(tokens, -1, dim) for x in mixed.split([group * heads * dim, heads * dim, heads * dim], dim=1)
    )
    angle = 100 * torch.randn(tokens, dim // 2, generator=draw)
    cos, sin = (torch.cat((x, x), dim=1).to(device) for x in (angle.cos(), angle.sin()))
    pages = torch.randperm(tokens, generator=draw).to(device) + 1
    offsets = torch.randint(0, block, (tokens,), generator=draw).to(device)
    pages[-2:], offsets[-2:] = 0, 0
    zeros = torch.zeros(tokens + 2, heads, 2, block, dim, dtype=dtype, device=device)
    found, expected = kept_as(zeros.clone(), kv_dtype), kept_as(zeros, kv_dtype)
    turned = triton_append.rotate_append(q, k, v, cos, sin, found, pages, offsets)
    append(rotate(k, cos, sin), v, expected, pages, offsets)
    assert torch.equal(turned, rotate(q, cos, sin))
    assert torch.equal(found[1:], expected[1:]) and found[:].isfinite().all()


# -- summaries -------------------------------------------------------------------------------------------


def fill_is_its_definition(
    device: str,
    kind: str,
    dtype: torch.dtype,
    dim: int = 64,
    gate_dim: int = 32,
    block: int = 16,
    heads: int = 2,
    kv_dtype: torch.dtype | None = None,
    **gate: Any,
) -> None:
    """Rows at, before and behind the end of a page, two of them padding, beside NaN in what is not written.

    Rows of full pages get their summary, all else keeps its own.
    """
    draw = torch.Generator().manual_seed(dim)
    positions = torch.tensor([block - 1, 3 * block - 1, 2 * block, 5 * block + 3, 8 * block - 1, 0, 0])
    pages = torch.tensor([4, 2, 7, 1, 6, 0, 0])
    kv = torch.randn(9, heads, 2, block, dim, generator=draw).to(dtype)
    for page, position in zip(pages[:5].tolist(), positions[:5].tolist(), strict=True):
        kv[page, :, :, position % block + 1 :] = float("nan")
    rope = RopeTable(RopeTable.from_theta(1e4, dim).inv_freq, 1.2, 9 * block)
    selector: Selector = Quest(dim, heads)
    if kind == "seer":
        made = AttnGate(
            num_query_heads=2 * heads,
            num_kv_heads=heads,
            head_dim=dim,
            gate_dim=gate_dim,
            block_size=block,
            **({"rope_theta": 1e4} if gate.get("use_rope", True) else {}),
            **gate,
        ).requires_grad_(False)
        made.reset_parameters(draw)
        if made.use_qk_norm:
            for norm in (made.attngate_knorm, made.attngate_qnorm):
                norm.weight.uniform_(0.5, 2.0, generator=draw)
        selector = Seer(made.to(device))
    summary = torch.full((9, heads, selector.summary_width), 7.0, dtype=dtype)
    kv, found, expected = kept_as(kv.to(device), kv_dtype), summary.to(device), summary.clone().to(device)
    current = CurrentPages(pages.to(device), positions.to(device), block)
    with patch.object(gpu, "takes", lambda tensor: True):
        selector.fill(kv, found, current, rope.to(device))
    if isinstance(selector, Seer):
        _asks(selector, kv, found.clone(), current, rope.to(device), draw)
    Selector.fill(selector, kv, expected, current, rope.to(device))
    untouched = [0, 1, 3, 5, 7, 8]
    assert (found[untouched] == 7).all()
    close = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found[1:].float(), expected[1:].float(), rtol=close, atol=close)
    assert (found[[4, 2, 6]] != 7).any(-1).all()


def _asks(
    selector: Seer,
    kv: KV,
    summary: torch.Tensor,
    current: CurrentPages,
    rope: RopeTable,
    draw: torch.Generator,
) -> None:
    """The query of a step is the gate's, and pages that are full are summarised as by ``fill``."""
    rows, heads, dim = len(current.pages), kv.shape[1], kv.shape[4]
    q = torch.randn(rows, 2 * heads, dim, generator=draw).to(summary.dtype).to(summary.device)
    table = torch.zeros(rows, 9, dtype=torch.int64, device=q.device)
    view = StepView(current.positions, current.positions + 1, table, current.block)
    filled, asked = summary.clone(), []
    with (
        patch.object(gpu, "takes", lambda tensor: True),
        patch.object(selector, "_scores", lambda query, *_: asked.append(query)),
    ):
        selector.step(Query(q, q, kv, summary, 1.0), view, current, rope)
    assert torch.equal(summary, filled)
    expected = selector.gate.gate_query(q, current.positions)
    torch.testing.assert_close(asked[0], expected, rtol=2e-5, atol=2e-5)


# -- target ----------------------------------------------------------------------------------------------


def target_is_its_definition(
    device: str,
    dtype: torch.dtype,
    kind: Literal["max", "mass"],
    tokens: int,
    first: int = 0,
    heads: int = 2,
    group: int = 3,
    dim: int = 32,
    block: int = 16,
) -> None:
    """Output and block shares, for the rows from ``first`` on, against the definition in fp64."""
    draw = torch.Generator().manual_seed(tokens)
    shapes = ((tokens, heads * group, dim), (tokens, heads, dim), (tokens, heads, dim))
    q, k, v = ((1.5 * torch.randn(shape, generator=draw)).to(dtype).to(device) for shape in shapes)
    scale = dim**-0.5
    out, target = triton_target.attend_rows(q, k, v, block, scale, first, kind)
    expected_out, expected = target_module.reference(
        q.double(), k.double(), v.double(), block, scale, first, kind
    )
    assert out.dtype == dtype and target.dtype == torch.float32 and target.shape == expected.shape
    assert target.numel() == 0 or (target.double() - expected).abs().max() < 1e-5
    assert error(out, expected_out) < limit(dtype)


# -- on a GPU alone --------------------------------------------------------------------------------------


def offsets_beyond_32_bits(device: str) -> None:
    """A cache of 2.6e9 numbers, of which the last pages are read and written."""
    pages, heads, block, dim = 20_000, 8, 64, 128
    kv = torch.zeros(pages, heads, 2, block, dim, dtype=torch.bfloat16, device=device)
    assert kv.numel() > 2**31
    small = Case(torch.bfloat16, rows=4, heads=heads, group=4, dim=dim, block=block, k=16, device=device)
    shift = pages - len(small.kv)
    kv[shift:] = small.kv
    ids = torch.where(small.page_ids < len(small.kv), small.page_ids + shift, small.page_ids)
    expected = triton_attend.attend(*small.arguments())  # type: ignore[arg-type]
    found = triton_attend.attend(small.q, kv, ids, small.counts, small.tails, small.scale)
    assert torch.equal(found, expected)
    cos = torch.ones(1, dim, device=device)
    k = torch.randn(1, heads, dim, device=device, dtype=torch.bfloat16)
    last, slot = torch.tensor([pages - 1], device=device), torch.tensor([5], device=device)
    q = torch.randn(1, heads * 4, dim, device=device, dtype=torch.bfloat16)
    triton_append.rotate_append(q, k, 2 * k, cos, torch.zeros_like(cos), kv, last, slot)
    assert torch.equal(kv[-1, :, 0, 5], k[0]) and torch.equal(kv[-1, :, 1, 5], 2 * k[0])


def graph_replays_as_lengths_change(device: str) -> None:
    """One captured step of score, select and attend: rows grow over page borders, shrink, are replaced."""
    rows, heads, group, dim, block, width, k = 6, 4, 4, 128, 64, 40, 8
    draw = torch.Generator(device).manual_seed(0)
    q = torch.randn(rows, heads * group, dim, generator=draw, device=device).bfloat16()
    kv = torch.randn(rows * width + 1, heads, 2, block, dim, generator=draw, device=device).bfloat16()
    summary = torch.randn(len(kv), heads, dim, generator=draw, device=device).bfloat16()
    table = 1 + torch.randperm(rows * width, generator=draw, device=device).view(rows, width)
    features = torch.randn(rows, heads, 1, dim, generator=draw, device=device)
    lengths = torch.ones(rows, dtype=torch.int64, device=device)

    def step() -> torch.Tensor:
        scores = triton_score.score(features, summary, table, lengths, block)
        ids, counts = triton_select.select(
            scores, table, lengths, block, Limits.of(scores.shape[1], k, True, device=device)
        )
        return triton_attend.attend(q, kv, ids, counts, (lengths - 1) % block + 1, dim**-0.5)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    for new in (
        [1] * rows,
        [63, 64, 65, 128, 500, 2560],
        [64, 65, 66, 129, 501, 1],
        [2560, 2, 1, 513, 512, 700],
    ):
        lengths.copy_(torch.tensor(new, device=device))
        graph.replay()
        assert torch.equal(out, step()), new


Check = tuple[str, Callable[[], None]]


def gpu_checks(device: str = "cuda") -> list[Check]:
    """All checks at a GPU's sizes, named."""
    checks: list[Check] = []

    def add(check: Callable[..., None], *arguments: Any, **shape: Any) -> None:
        words = [check.__name__, *arguments, *(f"{key}={value}" for key, value in shape.items())]
        name = " ".join(str(word).removeprefix("torch.") for word in words)
        checks.append((name, lambda: check(device, *arguments, **shape)))

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for dim in (64, 80, 96, 128, 256):
            add(attend_is_its_definition, dtype, dim=dim, block=64, k=33, rows=4)
        for group in (1, 2, 3, 5, 8, 16):
            add(attend_is_its_definition, dtype, group=group, dim=128, block=64, k=20)
        for block in (8, 16, 32, 128):
            add(attend_is_its_definition, dtype, block=block, dim=128, k=70)
        add(attend_is_its_definition, dtype, rows=8, heads=8, dim=128, block=64, k=512)
        add(attend_gives_zeros_without_pages, dtype, dim=128, block=64, k=20)
        for window in (None, 40):
            add(attend_spans, dtype, window=window, heads=4, group=4, dim=128, block=16)
        add(attend_rows_stand_alone, dtype, rows=16, heads=8, dim=128, block=64, k=150)
        add(attend_order_is_rounding, dtype, dim=128, block=64, k=40)
        add(attend_large_and_equal_logits, dtype, dim=128, block=64, k=30)
        add(attend_identity_is_dense, dtype, rows=4, dim=128, block=64, k=100)
        for vectors, dim in ((1, 128), (1, 64), (4, 256), (3, 160), (8, 512)):
            add(score_is_its_definition, dtype, vectors, dim, rows=6, heads=8, width=600)
        for dim, group in ((64, 3), (80, 4), (96, 1), (128, 4), (128, 8), (256, 16)):
            add(append_is_its_definition, dtype, dim, group, tokens=37)
            add(norms_before_rotation, dtype, dim, group, tokens=37)
        for width in (576, 2560, 4096, 5120, 8192):
            add(add_norm_is_its_definition, dtype, width, rows=37)
            add(silu_product_is_its_definition, dtype, 3 * width, rows=37)
        for group, dim in ((1, 64), (4, 128), (5, 80), (8, 256)):
            add(bound_is_its_definition, dtype, group, dim)
        for dim, block in ((64, 64), (80, 32), (128, 64), (256, 128)):
            add(fill_is_its_definition, "quest", dtype, dim=dim, block=block, heads=8)
            add(fill_is_its_definition, "seer", dtype, dim=dim, gate_dim=128, block=block, heads=8)
        for kind in ("max", "mass"):
            for group, dim in ((1, 64), (3, 80), (4, 128), (5, 128), (8, 256)):
                shape = {"heads": 2, "group": group, "dim": dim, "block": 64}
                add(target_is_its_definition, dtype, kind, tokens=3000, first=700, **shape)
            add(target_is_its_definition, dtype, kind, tokens=777, dim=128, block=128)
    for kept, dtype in itertools.product(TOP, (torch.bfloat16, torch.float16, torch.float32)):
        for dim, block in ((64, 16), (80, 32), (128, 64), (256, 128)):
            shape = {"dim": dim, "block": block, "heads": 8, "kv_dtype": kept}
            add(attend_is_its_definition, dtype, rows=4, k=70, **shape)
            add(fill_is_its_definition, "quest", dtype, **shape)
            add(fill_is_its_definition, "seer", dtype, gate_dim=128, **shape)
            add(append_is_its_definition, dtype, dim, 4, tokens=37, kv_dtype=kept)
        add(attend_rows_stand_alone, dtype, rows=16, heads=8, dim=128, block=64, k=150, kv_dtype=kept)
    for check, arguments, shape in prefill_cases():
        add(check, *arguments, **shape)
    for seed, width in enumerate((1, 7, 40, 512, 2048, 2049, 5000, 40_000)):
        add(select_is_its_definition, seed, width, trials=20)
    for width in (600, 3000):
        add(select_forces_against_infinite_scores, width)
        add(select_shares_nothing_where_scores_are_odd, width)
        add(select_rows_stand_alone, width)
    add(offsets_beyond_32_bits)
    add(graph_replays_as_lengths_change)
    return checks
