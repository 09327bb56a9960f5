"""Whether an operation runs as a Triton kernel."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch

from seer_ray.kernels.quantise import KV, TOP

DTYPES = (torch.float32, torch.float16, torch.bfloat16, *TOP)
MAX_DIM = 256


@cache
def has_triton() -> bool:
    return find_spec("triton") is not None


def takes(tensor: KV) -> bool:
    """Whether the Triton kernels take operations on this tensor. Never imports triton."""
    return tensor.is_cuda and tensor.dtype in DTYPES and has_triton()


def fits(kv: KV) -> bool:
    """Whether attention's kernel is made for pages of this shape; see the package docstring for it."""
    block, dim = kv.shape[3:]
    return block >= 8 and block & (block - 1) == 0 and dim <= MAX_DIM
