"""Gates of models whose own layers run as they are: dense passes, losses, and which layers have a gate."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from engines import tokens
from families import KINDS, make_family
from torch import Tensor

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import ObjectiveConfig
from seer_ray.corpora.pack import Pack
from seer_ray.models.gate_config import GateConfig, gated_layers, selecting_layers
from seer_ray.models.gates import init_gates
from seer_ray.models.patch import embed, forward_tokens, logits_of, normalise, run_layers
from seer_ray.training.gates.losses import GateTraining
from seer_ray.training.gates.memory import plan_memory
from seer_ray.training.gates.teacher import Teacher

BLOCK = 16
A, B = (torch.tensor(tokens(length, seed=length)) for length in (90, 70))


def training(family: str, **objective: float) -> GateTraining:
    model = make_family(family)
    gates = init_gates(model.config, GateConfig(block_size=BLOCK, gate_dim=8), seed=3)
    options = ObjectiveConfig(**objective)  # type: ignore[arg-type]
    return GateTraining(model, gates, gated_layers(None, model.config), options)


@pytest.mark.parametrize("family", (*KINDS, "qwen3"))
def test_the_teacher_is_the_model(family: str) -> None:
    """Logits of packed documents are Hugging Face's of each alone, in one pass and layer by layer: as near to
    the same in float64."""
    model: Any = make_family(family)
    pack = Pack.of([A, B])
    found = training(family)

    def lesson(layer: int, q: Tensor, k: Tensor, targets: Sequence[Tensor]) -> None:
        assert layer in selecting_layers(model.config) and q.shape[0] == k.shape[0] == len(pack.tokens)

    teacher = Teacher(pack, found.shape, found.ropes(pack), found.trained, BLOCK, 0.5, "max", False, lesson)
    with torch.no_grad():
        theirs = torch.cat([model(document[None]).logits[0] for document in (A, B)])
        exact = copy.deepcopy(model).double()
        exact.set_experts_implementation("eager")
        expected = torch.cat([exact(document[None]).logits[0] for document in (A, B)])
        whole = forward_tokens(found.model, pack.tokens, teacher)
        hidden = embed(found.model, pack.tokens)
        for layer in range(found.shape.layers):
            hidden = run_layers(found.model, hidden, teacher, range(layer, layer + 1))
    # Random weights blow rounding up by very different factors, so the model's own measures ours.
    ours = logits_of(found.model, whole)
    assert (ours - expected).abs().max() <= 2 * (theirs - expected).abs().max() + 1e-5
    torch.testing.assert_close(normalise(found.model, hidden), whole, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["ministral", "ministral3", "mistral", "phi3"])
def test_a_model_of_windows_alone_has_no_gates(family: str) -> None:
    with pytest.raises(ConfigError, match=rf"^gates: no layer of this {family} model attends to all"):
        gated_layers(None, make_family(family).config)


@pytest.mark.parametrize("family", KINDS)
def test_documents_of_a_pack_do_not_see_each_other(family: str) -> None:
    found = training(family, distill=1.0, lm=1.0)
    alone = [found.loss([Pack.of([document])])[1] for document in (A, B)]
    _, both = found.loss([Pack.of([A, B])])
    for name, rows in (("distill", (45, 35)), ("lm", (44, 34))):
        expected = sum(values[name] * count for values, count in zip(alone, rows, strict=True)) / sum(rows)
        assert both[name] == pytest.approx(expected, rel=1e-4)
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in found.module.parameters())


# Where a step changes which experts a token goes to, the loss jumps: so few mixtures.
@pytest.mark.parametrize("family", ["qwen3_5_text", "gpt_oss", "falcon_h1"])
def test_the_gradient_of_the_next_token_loss_is_its_slope(family: str) -> None:
    """Through windows, sinks and recurrences of later layers."""
    found = training(family, distill=0.0, lm=1.0)
    pack = Pack.of([A, B])
    found.loss([pack])
    first = next(iter(found.trained.values())).attngate_linear_q.weight
    assert first.grad is not None
    direction = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    slope, step = float((first.grad * direction).sum()), 3e-3
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            first.add_(sign * step * direction)
        values.append(found.loss([pack])[1]["lm"])
        with torch.no_grad():
            first.sub_(sign * step * direction)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=0.03)


def test_layers_that_select_nothing_have_no_gate() -> None:
    config = make_family("qwen3_next").config
    assert gated_layers(None, config) == (1, 3) and gated_layers("3", config) == (3,)
    gates = init_gates(config, GateConfig(block_size=BLOCK, gate_dim=8))
    assert [gate is not None for gate in gates] == [False, True, False, True]
    with pytest.raises(
        ConfigError, match=r"^gates.layers=0-1: layer 0 of this model is linear, .* name some of 1, 3$"
    ):
        gated_layers("0-1", config)


@pytest.mark.parametrize("family", ["qwen3_next", "nemotron_h", "qwen3_moe"])
def test_memory_counts_the_weights_of_every_model(family: str) -> None:
    model = make_family(family)
    plan = plan_memory(model.config, 256, BLOCK, 8, ObjectiveConfig(), torch.float32)
    assert plan.weights == 4 * sum(weight.numel() for weight in model.parameters())
