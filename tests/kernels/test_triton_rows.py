"""The Triton kernels between products in the interpreter."""

from __future__ import annotations

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

import row_checks as checks  # noqa: E402

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])


@DTYPES
@pytest.mark.parametrize("width", [64, 576])
def test_sums_and_norms(dtype: torch.dtype, width: int) -> None:
    checks.add_norm_is_its_definition("cpu", dtype, width)


@DTYPES
@pytest.mark.parametrize("inner", [96, 1536])
def test_the_middle_of_an_mlp(dtype: torch.dtype, inner: int) -> None:
    checks.silu_product_is_its_definition("cpu", dtype, inner)


@DTYPES
@pytest.mark.parametrize(("dim", "group"), [(64, 3), (80, 1), (128, 4)])
def test_norms_before_rotation(dtype: torch.dtype, dim: int, group: int) -> None:
    checks.norms_before_rotation("cpu", dtype, dim, group)


def test_norms_before_rotation_in_eight_bits() -> None:
    checks.norms_before_rotation("cpu", torch.float32, 64, 2, torch.int8)


@DTYPES
@pytest.mark.parametrize(("group", "dim"), [(1, 64), (3, 80)])
def test_bounds(dtype: torch.dtype, group: int, dim: int) -> None:
    checks.bound_is_its_definition("cpu", dtype, group, dim)
