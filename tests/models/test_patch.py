"""The one attention forward: stock logits in a packed pass, and a model that stays what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import FAMILIES, make_tiny
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from seer_ray.kernels import compiled as built
from seer_ray.kernels.rotary import rotate
from seer_ray.models.patch import attention_shape, forward_tokens, patch_attention
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention

FAMILY = pytest.mark.parametrize("family", FAMILIES)


class Dense:
    """A step that attends causally to the packed tokens themselves."""

    def __init__(self, model: PreTrainedModel, count: int) -> None:
        self.cos, self.sin = RopeTable.from_config(model.config).at(torch.arange(count))
        self.layers: list[int] = []

    def attend(self, layer: int, asked: Attention) -> torch.Tensor:
        q, k, v, scale, *_ = asked
        self.layers.append(layer)
        q, k = rotate(q, self.cos, self.sin), rotate(k, self.cos, self.sin)
        group = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)[0].transpose(0, 1)


def generate(model: Any) -> list[int]:
    ids = torch.arange(40).unsqueeze(0)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    return out[0].tolist()


@FAMILY
@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
def test_logits_are_the_models_own(family: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit by the definitions in torch; the compiled operations sum in another order."""
    model: Any = make_tiny(family)
    ids = torch.randint(0, 256, (37,), generator=torch.Generator().manual_seed(0))
    expected = model(ids.unsqueeze(0)).logits[0]
    patch_attention(model)
    step = Dense(model, len(ids))
    if not compiled:
        monkeypatch.setattr(built, "binary", lambda: None)
    with torch.inference_mode():
        found = model.lm_head(forward_tokens(model, ids, step))
    torch.testing.assert_close(found, expected, atol=2e-5 if compiled else 0, rtol=0)
    assert step.layers == [0, 1]


@FAMILY
def test_a_patched_model_is_used_as_before(family: str) -> None:
    model: Any = make_tiny(family)
    keys = list(model.state_dict())
    logits, tokens = model(torch.arange(9).unsqueeze(0)).logits, generate(model)
    patch_attention(model)
    patch_attention(model)  # once more changes nothing
    assert list(model.state_dict()) == keys
    assert torch.equal(model(torch.arange(9).unsqueeze(0)).logits, logits)
    assert generate(model) == tokens


@FAMILY
def test_shape(family: str) -> None:
    shape = attention_shape(make_tiny(family, num_hidden_layers=3, num_attention_heads=8, head_dim=8))
    assert (shape.layers, shape.q_heads, shape.kv_heads, shape.head_dim) == (3, 8, 2, 8)
    assert shape.mixers == ("attention",) * 3
