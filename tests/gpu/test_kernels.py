"""Triton kernels and CUDA graphs on a GPU, in all dtypes. Without pytest: ``python tests/gpu/run.py``."""

from __future__ import annotations

import checkout  # noqa: F401
import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA GPU", allow_module_level=True)
pytest.importorskip("triton", reason="triton is not installed")

from gpu.graph_checks import graph_checks
from gpu.overlap_checks import overlap_checks
from triton_checks import Check, gpu_checks


@pytest.mark.parametrize(
    "check", [*gpu_checks(), *graph_checks(), *overlap_checks()], ids=lambda check: check[0]
)
def test(check: Check) -> None:
    check[1]()
