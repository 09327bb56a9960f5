"""Linear layers by the compiled products: what the modules give, and never past what hangs on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import FAMILIES, make_tiny
from torch import nn

from seer_ray.kernels import compiled, cpu
from seer_ray.models.projection import feed_forward, project


class Calls:
    """Counts the compiled products."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.projections = self.mlp = 0
        for name in ("projections", "mlp"):
            monkeypatch.setattr(cpu, name, self.counted(name, getattr(cpu, name)))

    def counted(self, name: str, run: Any) -> Any:
        def call(*args: Any) -> Any:
            setattr(self, name, getattr(self, name) + 1)
            return run(*args)

        return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    if compiled.binary() is None:
        pytest.skip("no C++ compiler")
    return Calls(monkeypatch)


def rows(count: int = 3) -> torch.Tensor:
    return torch.randn(1, count, 64, generator=torch.Generator().manual_seed(0))


def make_mlp(family: str = "llama") -> Any:
    model: Any = make_tiny(family)
    return model.model.layers[0].mlp


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_a_model(family: str, calls: Calls) -> None:
    model: Any = make_tiny(family)
    layer = model.model.layers[0]
    attention, x = layer.self_attn, rows()
    layers = attention.q_proj, attention.k_proj, attention.v_proj
    with torch.no_grad():
        for found, module in zip(project(x, *layers), layers, strict=True):
            torch.testing.assert_close(found, module(x))
        torch.testing.assert_close(feed_forward(layer.mlp, x), layer.mlp(x))
    assert (calls.projections, calls.mlp) == (1, 1)


def test_any_number_of_rows_is_multiplied_by_the_kernels(calls: Calls) -> None:
    module, x = make_mlp(), rows(170)
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(module, x), module(x))
    assert (calls.projections, calls.mlp) == (0, 1)


def test_under_autograd_modules_are_called(calls: Calls) -> None:
    module = make_mlp().requires_grad_()
    feed_forward(module, rows()).sum().backward()
    assert (calls.projections, calls.mlp) == (0, 0)
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("part", ["", "gate_proj", "up_proj", "down_proj", "act_fn"])
@pytest.mark.parametrize("kind", ["hook", "pre-hook", "forward"])
def test_what_hangs_on_a_module_is_called(part: str, kind: str, calls: Calls) -> None:
    module = make_mlp()
    target, seen = module.get_submodule(part), []
    if kind == "hook":
        target.register_forward_hook(lambda *_: seen.append(1))
    elif kind == "pre-hook":
        target.register_forward_pre_hook(lambda *_: seen.append(1))
    else:
        original = target.forward
        target.forward = lambda *args: seen.append(1) or original(*args)
    with torch.no_grad():
        feed_forward(module, rows())
    assert seen == [1]


class Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_a_subclass_keeps_its_forward() -> None:
    plain, doubled = nn.Linear(64, 8), Doubled(64, 8)
    doubled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        once, twice = project(rows(), plain, doubled)
    assert torch.equal(twice, 2 * once)


def test_an_mlp_with_another_activation(calls: Calls) -> None:
    module = make_mlp()
    module.act_fn = nn.ReLU()
    with torch.no_grad():
        assert torch.equal(feed_forward(module, rows()), module(rows()))
    assert calls.mlp == 0


def test_an_mlp_without_a_gate(calls: Calls) -> None:
    module = nn.Sequential(nn.Linear(64, 8), nn.SiLU())
    with torch.no_grad():
        assert torch.equal(feed_forward(module, rows()), module(rows()))
    assert calls.mlp == 0


def test_an_mlp_in_training(calls: Calls) -> None:
    """Some drop outputs there."""
    module = make_mlp().train()
    with torch.no_grad():
        assert torch.equal(feed_forward(module, rows()), module(rows()))
    assert calls.mlp == 0
