"""What must hold of the kernel that draws tokens, on any device; see ``triton_checks``."""

from __future__ import annotations

import torch

from seer_ray.kernels import triton_draw
from seer_ray.kernels.draw import SamplingTensors, everything, reference

WAYS = [
    (0.0, 0.5, 0.0, 5),
    (0.7, 1.0, 0.0, 0),
    (1.3, 1.0, 0.05, 20),
    (0.7, 0.3, 0.0, 0),
    (1.3, 0.9, 0.05, 20),
    (1.0, 0.0, 0.0, 0),
    (1.3, 0.9, 0.0, 1),
    (1.0, 0.999, 0.0, 700),
]
"""Temperature, top-p, min-p and top-k."""


def params_of(ways: list[tuple[float, float, float, int]], device: str) -> SamplingTensors:
    columns = list(zip(*ways, strict=True))
    temperature, top_p, min_p = (torch.tensor(column, device=device) for column in columns[:3])
    top_k = torch.tensor(columns[3], device=device)
    draw = torch.Generator().manual_seed(len(ways))
    keys = torch.randint(-(2**62), 2**62, (len(ways),), generator=draw).to(device)
    return SamplingTensors(temperature, top_p, min_p, torch.ones_like(top_p), top_k, keys)


def defined(logits: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    """Tokens by the definitions: sorted where ranks count."""
    values, ids = everything(logits, params)
    free = SamplingTensors(**(vars(params) | {"top_k": params.top_k * 0, "top_p": params.top_p * 0 + 2}))
    tokens = torch.where(params.ranked, reference(logits, params), reference(logits, free))
    assert torch.equal(ids[:, :1], torch.zeros_like(ids[:, :1])) and values.shape == logits.shape
    return torch.where(params.temperature > 0, tokens, logits.argmax(-1))


def draws_are_their_definition(
    device: str, vocabulary: int, spread: float, steps: float | None, dtype: torch.dtype = torch.float32
) -> None:
    """Of every way in one batch, and of a row alone. ``steps``: to a unit, of which logits are whole numbers,
    so that there are ties wherever something is cut off."""
    noise = torch.Generator().manual_seed(vocabulary)
    logits = spread * torch.randn(len(WAYS), vocabulary, generator=noise)
    if steps is not None:
        logits = logits.mul(steps).round().div(steps)
    logits[:, 5] = float("-inf")  # as a form removes tokens
    logits = logits.to(dtype).to(device)
    params = params_of(WAYS, device)
    found = triton_draw.draw(logits, params)
    assert torch.equal(found, defined(logits.float(), params))
    alone = triton_draw.draw(logits[4:5], params.at(torch.tensor([4], device=device)))
    assert alone == found[4]
