"""Decode attention of rows with several queries: each as if it were a row of its own."""

from __future__ import annotations

import pytest
import torch
from attend_paths import DTYPES, PATHS, Attend, compiled
from span_case import SpanCase

from seer_ray.kernels.attend import reference


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
