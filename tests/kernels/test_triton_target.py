"""The Triton kernels of the distillation target in the interpreter."""

from __future__ import annotations

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

import triton_checks as checks  # noqa: E402

KINDS = pytest.mark.parametrize("kind", ["max", "mass"])


@pytest.mark.parametrize(("group", "kind"), [(1, "mass"), (3, "max"), (4, "mass"), (5, "max"), (8, "mass")])
def test_groups(group: int, kind: str) -> None:
    checks.target_is_its_definition("cpu", torch.float32, kind, tokens=53, group=group)


@KINDS
@pytest.mark.parametrize(
    ("tokens", "first"), [(1, 0), (16, 0), (17, 16), (130, 64), (130, 129)], ids=lambda value: str(value)
)
def test_lengths(tokens: int, first: int, kind: str) -> None:
    checks.target_is_its_definition("cpu", torch.float32, kind, tokens=tokens, first=first)


@pytest.mark.parametrize(("dim", "block"), [(80, 16), (64, 64), (128, 128), (256, 32)])
def test_shapes(dim: int, block: int) -> None:
    checks.target_is_its_definition("cpu", torch.float32, "max", tokens=block + 40, dim=dim, block=block)


def test_half_precision() -> None:
    checks.target_is_its_definition("cpu", torch.float16, "max", tokens=100)


def test_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.triton_target, "CHUNK", 37)
    checks.target_is_its_definition("cpu", torch.float32, "mass", tokens=120, first=20)
