"""Triton's summaries of full pages, in the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

import triton_checks as checks  # noqa: E402

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])


@DTYPES
@pytest.mark.parametrize(("dim", "block"), [(64, 8), (64, 16), (80, 48)])
def test_extremes(dtype: torch.dtype, dim: int, block: int) -> None:
    checks.fill_is_its_definition("cpu", "quest", dtype, dim, block=block)


@DTYPES
@pytest.mark.parametrize(
    ("dim", "gate_dim", "block"), [(64, 32, 16), (64, 256, 8), (80, 48, 48), (32, 128, 64)]
)
def test_compressed_keys(dtype: torch.dtype, dim: int, gate_dim: int, block: int) -> None:
    checks.fill_is_its_definition("cpu", "seer", dtype, dim, gate_dim, block)


@pytest.mark.parametrize("kind", ["quest", "seer"])
def test_eight_bits(kind: str) -> None:
    checks.fill_is_its_definition("cpu", kind, torch.float32, 80, block=48, kv_dtype=torch.int8)


@pytest.mark.parametrize(
    "gate",
    [{"k_pooling": "Kmax"}, {"k_pooling": "Kminavg"}, {"use_qk_norm": False}, {"use_rope": False}],
    ids=str,
)
def test_kinds_of_gates(gate: dict[str, Any]) -> None:
    checks.fill_is_its_definition("cpu", "seer", torch.float32, **gate)
