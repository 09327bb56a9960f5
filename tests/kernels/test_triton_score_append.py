"""The Triton kernels of ``score`` and ``rotate_append`` in the interpreter."""

from __future__ import annotations

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

import triton_checks as checks  # noqa: E402

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])


@DTYPES
@pytest.mark.parametrize(("vectors", "dim"), [(1, 64), (1, 128), (3, 160)])
def test_score(dtype: torch.dtype, vectors: int, dim: int) -> None:
    checks.score_is_its_definition("cpu", dtype, vectors, dim)


@DTYPES
@pytest.mark.parametrize(("dim", "group"), [(64, 3), (80, 1), (96, 8), (128, 4), (256, 16)])
def test_append(dtype: torch.dtype, dim: int, group: int) -> None:
    checks.append_is_its_definition("cpu", dtype, dim, group)


@DTYPES
@pytest.mark.parametrize("dim", [64, 80])
def test_append_in_eight_bits(dtype: torch.dtype, dim: int) -> None:
    checks.append_is_its_definition("cpu", dtype, dim, 2, kv_dtype=torch.int8)
