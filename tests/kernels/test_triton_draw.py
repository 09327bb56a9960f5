"""The kernel that draws tokens, in the interpreter."""

from __future__ import annotations

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

import draw_checks as checks  # noqa: E402


@pytest.mark.parametrize(
    ("dtype", "spread", "steps"),
    [(torch.float32, 3.0, None), (torch.float16, 0.7, 2.0)],
    ids=["apart", "ties"],
)
def test_draws(dtype: torch.dtype, spread: float, steps: float | None) -> None:
    checks.draws_are_their_definition("cpu", 3000, spread, steps, dtype)
