"""Gated DeltaNet in the slots of an engine: what it makes and leaves is what transformers makes of copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import make_family

from seer_ray.models import recurrence
from seer_ray.models.hosted import host
from seer_ray.models.recurrence import Slots, advance

DELTA = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "olmo_hybrid")


@pytest.mark.parametrize("family", DELTA)
@torch.inference_mode()
def test_in_place_is_by_copies(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = make_family(family)
    shapes = host(model).states[0]
    assert shapes is not None
    draw = torch.Generator().manual_seed(0)
    conv, recurrent = (torch.randn(6, *x.shape[1:], generator=draw) for x in shapes if x is not None)
    module = model.model.layers[0].linear_attn
    forward = module.forward.args[1]
    found, slots = [], torch.tensor([4, 0, 5])
    for in_place in (True, False):
        held = Slots((conv.clone(), recurrent.clone()), slots)
        if in_place:
            monkeypatch.setattr(Slots, "take", None)  # nothing is copied
        else:
            monkeypatch.undo()
            monkeypatch.setattr(recurrence, "_in_place", lambda module, held: False)
        outs = [
            advance(module, forward, torch.randn(3, 1, 64, generator=torch.Generator().manual_seed(t)), held)
            for t in range(6)
        ]
        found.append((torch.stack(outs), *held.kept))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    others = torch.tensor([1, 2, 3])
    assert torch.equal(found[0][2][others], recurrent[others])
