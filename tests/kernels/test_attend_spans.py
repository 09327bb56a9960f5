"""Decode attention of rows with several queries: each as if it were a row of its own."""

from __future__ import annotations

import pytest
import torch
from attend_paths import DTYPES, PATHS, Attend, compiled
from paged_case import kept_as

from seer_ray.kernels.attend import reference
from seer_ray.kernels.quantise import KV
from seer_ray.kernels.spans import Spans

LENGTHS = (9, 16, 17, 200, 129, 3)
"""That the last query of each row sees: within a page of 16, at its end, behind it, beyond a split."""
LIVES = (5, 3, 8, 1, 2, 0)


class SpanCase:
    """Rows over pages of their own in which nothing is finite but what may be read."""

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        heads: int = 2,
        group: int = 3,
        dim: int = 64,
        block: int = 16,
        kv_dtype: torch.dtype | None = None,
        padding: int = 2,
    ) -> None:
        draw = torch.Generator().manual_seed(group + dim)
        lengths, lives = torch.tensor(LENGTHS), torch.tensor(LIVES)
        pages = int(lengths.max() - 1) // block + 1
        table = 1 + torch.randperm(len(LENGTHS) * pages, generator=draw).view(-1, pages)
        kv = torch.full((1 + len(LENGTHS) * pages, heads, 2, block, dim), float("nan"))
        kv[0] = 0
        for row, length in enumerate(LENGTHS):
            for token in range(length):
                new = torch.randn(heads, 2, dim, generator=draw)
                kv[table[row, token // block], :, :, token % block] = new
        self.kv: KV = kept_as(kv.to(dtype), kv_dtype)
        self.lengths, self.table, self.block, self.heads = lengths, table, block, heads
        queries = sum(LIVES) + padding
        self.q = torch.randn(queries, heads * group, dim, generator=draw).to(dtype)
        row_of = torch.cat((torch.repeat_interleave(lives), torch.zeros(padding, dtype=torch.int64)))
        self.spans = Spans(lives.cumsum(0) - lives, lives, row_of, max(LIVES))
        self.sinks = torch.randn(heads * group, generator=draw)

    def arguments(self, lengths: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ids = table.unsqueeze(1).expand(-1, self.heads, -1)
        counts = ((lengths - 1) // self.block + 1).unsqueeze(1).expand(-1, self.heads)
        return ids, counts, (lengths - 1) % self.block + 1

    def listed(self, window: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pages from the first one on that a row's first query sees, and what the last one sees of them."""
        behind = self.lengths - self.spans.lives + 1 - (window or int(self.lengths.max()))
        first = behind.clamp(min=0) // self.block
        index = first.unsqueeze(1) + torch.arange(self.table.shape[1])
        table = self.table.gather(1, index.clamp(max=self.table.shape[1] - 1))
        return table, self.lengths - first * self.block

    def together(self, path: Attend, sinks: bool, window: int | None) -> torch.Tensor:
        table, lengths = self.listed(window)
        last = (0.3, None, self.sinks if sinks else None, self.spans, window)
        return path(self.q, self.kv, *self.arguments(lengths, table), *last)

    def apart(self, path: Attend, sinks: bool, window: int | None) -> torch.Tensor:
        """Every query in a call of its own."""
        out, last = torch.zeros_like(self.q), (0.3, None, self.sinks if sinks else None, None, window)
        table, lengths = self.listed(window)
        for row, (start, live) in enumerate(zip(self.spans.starts.tolist(), LIVES, strict=True)):
            for place in range(live):
                seen = lengths[row : row + 1] - (live - 1 - place)
                pages = table[row : row + 1, : int(seen - 1) // self.block + 1]
                at = slice(start + place, start + place + 1)
                out[at] = path(self.q[at], self.kv, *self.arguments(seen, pages), *last)
        return out


@PATHS
@DTYPES
@pytest.mark.parametrize(("group", "dim"), [(1, 64), (3, 64), (4, 80), (8, 128), (7, 16)])
def test_bits_of_a_row_of_its_own(path: Attend, dtype: torch.dtype, group: int, dim: int) -> None:
    case = SpanCase(dtype, group=group, dim=dim)
    found = case.together(path, sinks=False, window=None)
    assert torch.equal(found, case.apart(path, sinks=False, window=None))
    assert (found[-2:] == 0).all()  # of no row


@PATHS
@pytest.mark.parametrize("window", [None, 5, 16, 40])
@pytest.mark.parametrize("sinks", [False, True])
def test_windows_and_sinks(path: Attend, window: int | None, sinks: bool) -> None:
    case = SpanCase()
    assert torch.equal(case.together(path, sinks, window), case.apart(path, sinks, window))


def test_eight_bits() -> None:
    case = SpanCase(kv_dtype=torch.int8)
    case.kv.scales.nan_to_num_()  # type: ignore[union-attr]
    assert torch.equal(case.together(compiled, False, None), case.apart(compiled, False, None))


@DTYPES
def test_paths_agree(dtype: torch.dtype) -> None:
    case = SpanCase(dtype)
    for window in (None, 20):
        found, expected = (case.together(path, True, window).double() for path in (compiled, reference))
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 if dtype != torch.float32 else 1e-5)


def test_number_of_threads_does_not_matter() -> None:
    case, before = SpanCase(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = case.together(compiled, False, None)
        torch.set_num_threads(3)
        assert torch.equal(case.together(compiled, False, None), one)
    finally:
        torch.set_num_threads(before)
