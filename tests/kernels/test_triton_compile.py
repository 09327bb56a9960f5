"""What the Triton compiler makes of the kernels for GPUs of capability 8.0, 9.0 and 10.0; needs none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed")


@pytest.fixture(scope="module")
def compiled(long: bool) -> dict[str, dict[str, Any]]:
    """Kernels by case. In a process of its own, where kernels are not interpreted."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_kernels.py")
    command = [sys.executable, str(script), *(["--long"] if long else [])]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["case"]: line["kernels"] for line in lines}


def test_no_spills(compiled: dict[str, dict[str, Any]]) -> None:
    for case, kernels in compiled.items():
        for name, kernel in kernels.items():
            assert kernel["spilled"] == 0, (case, name, kernel)


def test_every_kernel_is_compiled_for_every_architecture(compiled: dict[str, dict[str, Any]]) -> None:
    every = {
        "attend_splits",
        "fold_splits",
        "score_chunk",
        "select_narrow",
        "select_wide",
        "rotate_append_head",
        "add_norm_row",
        "silu_product_tile",
        "draw_row",
        "prefill_tiles",
        "attend_tiles",
        "fold_heads",
        "compress_page",
        "extremes_page",
    }
    for arch in ("80", "90", "100"):
        assert {name for case in compiled if f" {arch} " in case for name in compiled[case]} == every


def test_attention_reads_ahead(compiled: dict[str, dict[str, Any]]) -> None:
    """Two buffers of K and of V or more, filled by asynchronous copies of 16 bytes while others are in use;
    tensor cores multiply."""
    for case, kernels in compiled.items():
        kernel = kernels.get("attend_splits", kernels.get("prefill_tiles"))
        if kernel is None:
            continue
        assert kernel["buffers"] in ([2, 2], [3, 3]), case
        if not ("int8" in case or "float8" in case):  # a tile of those may be less than 16 bytes a thread
            assert kernel["copies_of_16_bytes"] > 0, case
        assert kernel["copies_ahead"] > 0, case
        assert ("float32" in case) == (kernel["products"] == 0), case


def test_three_programs_fit_on_a_processor(compiled: dict[str, dict[str, Any]]) -> None:
    """Of an H100 or H200: 228 KiB of shared memory, 1 KiB of it lost for each, and 65536 registers."""
    for case, kernels in compiled.items():
        if case.startswith("attend 90 bfloat16") or case.startswith("attend 90 float16"):
            kernel = kernels["attend_splits"]
            assert 3 * (kernel["shared"] + 1024) <= 228 * 1024, case
            assert 3 * 128 * kernel["registers"] <= 65536, case


def test_prefill_fits_on_a_processor(compiled: dict[str, dict[str, Any]]) -> None:
    """One program at least, of an A100: 164 KiB of shared memory, 1 KiB of it lost."""
    for case, kernels in compiled.items():
        if case.startswith("prefill"):
            assert kernels["prefill_tiles"]["shared"] + 1024 <= 164 * 1024, case
