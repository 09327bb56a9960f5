"""Packed documents through the decoder: as each alone, by transformers' own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training.small import small

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import MixerPlanConfig
from seer_ray.models.mixers import resolve_mixers
from seer_ray.models.packed import Documents, PackedStep, mixers_of
from seer_ray.models.patch import forward_tokens, patch_attention
from seer_ray.models.rope import RopeTable
from seer_ray.training.pretrain.model import make_model
from seer_ray.training.pretrain.tokenizer import make_tokenizer

MIXERS = [
    (),
    ("architecture.mixers={0-1: sliding}", "architecture.window=4"),
    ("architecture.mixers.1=sliding",),
]


def model(*overrides: str) -> Any:
    made = make_model(small(*overrides).architecture, MixerPlanConfig(), make_tokenizer(512), seed=3)
    with torch.no_grad():  # attention that matters
        torch.manual_seed(5)
        for name, parameter in made.named_parameters():
            if "proj" in name:
                parameter.normal_(0.0, 0.3)
    return made


def packed(made: Any, tokens: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    rope = RopeTable.from_config(made.config, 64)
    step = PackedStep(Documents(lengths), rope, mixers_of(made.config))
    return made.lm_head(forward_tokens(made, tokens, step))


@pytest.mark.parametrize("overrides", MIXERS)
@pytest.mark.parametrize("lengths", [(11, 11, 11), (7, 1, 13, 2), (23,)])
def test_each_document_is_as_it_is_alone(overrides, lengths):
    stock, ours = model(*overrides), model(*overrides)
    patch_attention(ours)
    tokens = torch.randint(0, 2000, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = [stock(part.unsqueeze(0)).logits[0] for part in tokens.split(lengths)]
        together = packed(ours, tokens, lengths)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lengths", [(6, 6), (5, 7)])
def test_no_gradient_flows_between_documents(lengths):
    made = model()
    patch_attention(made)
    table = torch.nn.Parameter(torch.randn(12, 32))
    made.model.embed_tokens.forward = lambda tokens: table  # so that every position has its own gradient
    logits = packed(made, torch.arange(12), lengths)
    logits[lengths[0] :].square().sum().backward()
    assert table.grad is not None
    assert not table.grad[: lengths[0]].any() and table.grad[lengths[0] :].any(1).all()


def test_a_window_hides_what_is_before_it():
    made = model("architecture.mixers.0-1=sliding", "architecture.window=3")
    patch_attention(made)
    tokens = torch.arange(10)
    other = tokens.clone()
    other[2] = 77  # two layers of window 3 reach 4 tokens back: position 6 is the last to see it
    with torch.no_grad():
        changed = (packed(made, tokens, (10,)) - packed(made, other, (10,))).abs().amax(1) > 1e-6
    assert changed.tolist() == [2 <= position <= 6 for position in range(10)]


def test_mixers_by_index_and_range():
    assert resolve_mixers({"1-2": "sliding"}, 4) == ["attention", "sliding", "sliding", "attention"]
    assert resolve_mixers({"0-3": "sliding", "0": "attention"}, 4)[:2] == ["attention", "sliding"]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"0": "slidng"},
            r"^architecture\.mixers\.0=slidng: must be one of attention, .* \(did you mean 'sliding'",
        ),
        ({"4": "sliding"}, r"^architecture\.mixers\.4=sliding: must name layers 0 to 3"),
        ({"x": "sliding"}, r"must name layers 0 to 3"),
    ],
)
def test_unknown_mixers_and_layers_are_refused(named, message):
    with pytest.raises(ConfigError, match=message):
        resolve_mixers(named, 4)
