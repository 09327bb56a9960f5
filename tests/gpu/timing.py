"""Constants of attention's kernel, tried one by one on a GPU; see ``run.py``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch

from seer_ray.bench.case import Case, Shape
from seer_ray.bench.timing import side_by_side
from seer_ray.kernels import triton_attend

SHAPES = (Shape("qwen3-8b", 1, 32768, 4096), Shape("qwen3-8b", 8, 32768, 4096))
SWEEP = [  # the first row is what they are
    {},
    {"STAGES": 2},
    {"STAGES": 4},
    {"WARPS": 2},
    {"WARPS": 8},
    {"SPLIT_TOKENS": 128},
    {"SPLIT_TOKENS": 512},
    {"SPLIT_TOKENS": 1024},
    {"FOLD": 8},
    {"FOLD": 32},
]


@contextmanager
def constants(module: Any, values: dict[str, int]) -> Any:
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@torch.inference_mode()
def sweep(shape: Shape) -> dict[str, Any]:
    """Prints the times, returns them."""
    print(f"\nconstants of attend, {shape}: sparse µs, dense µs")
    device = torch.device("cuda")
    case = Case(shape, torch.bfloat16, device)
    found = []
    for values in SWEEP:
        try:
            with constants(triton_attend, values):
                case.check()
                times = side_by_side({"sparse": case.attention, "dense": case.dense}, device, 15)
        except Exception as problem:  # one that does not compile must not end the others
            print(f"  {values}: {type(problem).__name__} {str(problem)[:200]}", flush=True)
            continue
        print(f"  {values or 'as they are'}: {times['sparse']:.1f} {times['dense']:.1f}", flush=True)
        found.append({"constants": values, **{f"{name}_us": round(t, 2) for name, t in times.items()}})
    return {"batch": shape.batch, "context": shape.context, "budget": shape.budget, "found": found}
