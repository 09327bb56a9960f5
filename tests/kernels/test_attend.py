"""Decode attention: both paths against the softmax written out, and every row for itself."""

from __future__ import annotations

import pytest
import torch
from attend_paths import DTYPES, PATHS, Attend, compiled
from paged_case import Case, error, limit
from torch.nn.functional import scaled_dot_product_attention

from seer_ray.kernels import attend as module
from seer_ray.kernels.attend import SPLIT, attend, reference


@PATHS
@DTYPES
@pytest.mark.parametrize("group", [1, 3, 4, 5, 8])
def test_groups(path: Attend, dtype: torch.dtype, group: int) -> None:
    case = Case(dtype, group=group, seed=group)
    assert error(path(*case.arguments()), case.expected()) < limit(dtype)


@PATHS
@DTYPES
@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("dim", [64, 80, 128])
def test_shapes(path: Attend, dtype: torch.dtype, dim: int, block: int) -> None:
    case = Case(dtype, rows=2, dim=dim, block=block, k=9, seed=dim + block)
    assert error(path(*case.arguments()), case.expected()) < limit(dtype)


@PATHS
@DTYPES
@pytest.mark.parametrize(("skips", "sinks"), [(True, False), (False, True), (True, True)])
def test_windows_and_sinks(path: Attend, dtype: torch.dtype, skips: bool, sinks: bool) -> None:
    case = Case(dtype, rows=5, k=2 * SPLIT + 1, skips=skips, sinks=sinks)
    assert error(path(*case.arguments()), case.expected()) < limit(dtype)


@PATHS
def test_a_sink_may_take_all(path: Attend) -> None:
    case = Case(sinks=True)
    assert case.sinks is not None
    case.sinks[0], case.sinks[1] = 1e4, -1e4
    out = path(*case.arguments())
    assert (out[:, 0] == 0).all()
    assert error(out, case.expected()) < limit(torch.float32)


@PATHS
@pytest.mark.parametrize("k", [1, SPLIT - 1, SPLIT, SPLIT + 1, 9 * SPLIT])
def test_widths(path: Attend, k: int) -> None:
    case = Case(k=k, seed=k)
    assert error(path(*case.arguments()), case.expected()) < limit(torch.float32)


@PATHS
@DTYPES
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_eighty(path: Attend, dtype: torch.dtype, sign: int) -> None:
    """All near 80, where bfloat16 has steps of 0.5, and not far from each other."""
    case = Case(dtype)
    direction = torch.nn.functional.normalize(torch.ones(case.dim), dim=0)
    case.kv[:, :, 0] += (20 * direction).to(dtype)
    case.q += (sign * 8 * direction).to(dtype)
    queries = case.q.float().unflatten(1, (-1, case.group))
    logits = torch.einsum("rhgd,phtd->rhgpt", queries, case.kv[:, :, 0].float().nan_to_num())
    case.scale = 80.0 / float(logits.abs().max())
    found = path(*case.arguments())
    assert found.isfinite().all()
    # The last bit of an fp32 logit is worth 8e-6 there.
    assert error(found, case.expected()) < (3e-5 if dtype == torch.float32 else limit(dtype))


@PATHS
def test_equal_logits_average_the_values(path: Attend) -> None:
    case = Case()
    case.q.zero_()
    assert error(path(*case.arguments()), case.expected()) < limit(torch.float32)


@DTYPES
def test_paths_agree(dtype: torch.dtype) -> None:
    case = Case(dtype, rows=5, group=3, dim=80, k=20)
    expected = reference(*case.arguments()).double()  # type: ignore[arg-type]
    assert error(compiled(*case.arguments()), expected) < limit(dtype)


@PATHS
@DTYPES
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_does_not_depend_on_its_mates(path: Attend, dtype: torch.dtype, threads: int) -> None:
    case = Case(dtype, rows=16, group=3, block=16, k=9 * SPLIT)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = path(*case.arguments())
        order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
        assert torch.equal(path(*case.rows(order)), together[order])
        for row in range(16):
            width = int(case.counts[row].max())  # no slot more than it needs: its mates had longer lists
            alone = path(*case.rows(torch.tensor([row]), width))
            assert torch.equal(alone, together[row : row + 1])
    finally:
        torch.set_num_threads(before)


@PATHS
def test_number_of_threads_does_not_matter(path: Attend) -> None:
    case = Case(rows=4, k=9 * SPLIT)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = path(*case.arguments())
        torch.set_num_threads(3)
        assert torch.equal(path(*case.arguments()), one)
    finally:
        torch.set_num_threads(before)


@PATHS
def test_identity_lists_are_dense_attention(path: Attend) -> None:
    rows, heads, group, dim, block, pages = 3, 2, 4, 64, 16, 6
    draw = torch.Generator().manual_seed(0)
    kv = torch.randn(1 + rows * pages, heads, 2, block, dim, generator=draw)
    table = 1 + torch.randperm(rows * pages, generator=draw).view(rows, pages)
    lengths = torch.tensor([1, 3 * block, 5 * block + 7])
    q = torch.randn(rows, heads * group, dim, generator=draw)
    blocks = (lengths - 1) // block + 1
    found = path(
        q,
        kv,
        table.unsqueeze(1).expand(-1, heads, -1),
        blocks.unsqueeze(1).expand(-1, heads),
        (lengths - 1) % block + 1,
        0.3,
    )
    for row, length in enumerate(lengths.tolist()):
        k, v = (
            kv[table[row], :, part].transpose(0, 1).reshape(1, heads, -1, dim)[:, :, :length]
            for part in (0, 1)
        )
        dense = scaled_dot_product_attention(q[row].view(1, -1, 1, dim), k, v, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(found[row], dense.view(-1, dim))


def test_strided_lists() -> None:
    """The compiled path walks a list in steps of one entry, whatever the tensor's strides are."""
    case = Case()
    q, kv, ids, counts, tails, scale, *_ = case.arguments()
    assert isinstance(ids, torch.Tensor)
    strided = ids.transpose(0, 2).contiguous().transpose(0, 2)
    assert strided.stride(2) != 1
    expected = compiled(q, kv, ids, counts, tails, scale)
    assert torch.equal(compiled(q, kv, strided, counts, tails, scale), expected)


def test_choice_of_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 has no compiled path; what has one takes it."""
    half = Case(torch.float16)
    assert error(attend(*half.arguments()), half.expected()) < 5e-3  # type: ignore[arg-type]
    single = Case()
    expected = compiled(*single.arguments())
    monkeypatch.setattr(module, "reference", None)
    assert torch.equal(attend(*single.arguments()), expected)  # type: ignore[arg-type]
