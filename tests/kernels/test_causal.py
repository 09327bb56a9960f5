"""Causal attention with windows and sinks, and its gradient, against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seer_ray.kernels import causal as module
from seer_ray.kernels.causal import causal
from seer_ray.kernels.target import attend_with_target

TOKENS, Q_HEADS, KV_HEADS, DIM = 70, 4, 2, 8


def inputs(seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((Q_HEADS, DIM), (KV_HEADS, DIM), (KV_HEADS, DIM))
    return [torch.randn(TOKENS, *shape, generator=draw, dtype=torch.float64) for shape in shapes]


def formula(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, sinks: Tensor | None
) -> Tensor:
    k, v = (x.repeat_interleave(Q_HEADS // KV_HEADS, 1) for x in (k, v))
    logits = torch.einsum("thd,shd->hts", q, k) * scale
    distance = torch.arange(TOKENS).unsqueeze(1) - torch.arange(TOKENS)
    logits = logits.masked_fill((distance < 0) | (distance >= (window or TOKENS)), float("-inf"))
    sums = logits.exp().sum(2, keepdim=True)
    if sinks is not None:
        sums = sums + sinks.view(-1, 1, 1).exp()
    return torch.einsum("hts,shd->thd", logits.exp() / sums, v)


@pytest.mark.parametrize("rows", [1, 7, 1000], ids="in pieces of {} rows".format)
@pytest.mark.parametrize(
    "sinks", [None, torch.tensor([-1.0, 0.0, 2.0, 5.0], dtype=torch.float64)], ids=["", "sinks"]
)
@pytest.mark.parametrize("window", [None, 1, 9, 70])
def test_output_and_gradient_are_those_of_the_formula(
    window: int | None, sinks: Tensor | None, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOGITS", rows * Q_HEADS * min(window or TOKENS, TOKENS))
    found, expected = inputs(), inputs()
    outputs = []
    for each, attention in ((found, causal), (expected, formula)):
        for x in each:
            x.requires_grad_(True)
        outputs.append(attention(*each, 0.4, window, sinks))
        (outputs[-1] * torch.arange(DIM)).sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1])
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("kind", ["max", "mass"])
def test_sinks_take_from_the_output_and_not_from_the_target(kind: str) -> None:
    q, k, v = (x.float() for x in inputs())
    sinks = torch.tensor([-1.0, 0.0, 2.0, 5.0])
    _, without = attend_with_target(q, k, v, 16, 0.4, 20, kind)  # type: ignore[arg-type]
    out, target = attend_with_target(q, k, v, 16, 0.4, 20, kind, sinks)  # type: ignore[arg-type]
    assert torch.equal(target, without)
    expected = formula(*inputs(), 0.4, None, sinks.double()).float()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
