"""The two ways of decode attention on a CPU: ``from attend_paths import DTYPES, PATHS``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from seer_ray.kernels import cpu
from seer_ray.kernels.attend import reference
from seer_ray.kernels.compiled import binary

Attend = Callable[..., torch.Tensor]


def compiled(*arguments: object) -> torch.Tensor:
    if binary() is None:
        pytest.skip("no C++ compiler")
    return cpu.attend(*arguments)  # type: ignore[arg-type]


PATHS = pytest.mark.parametrize("path", [compiled, reference], ids=["compiled", "torch"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
