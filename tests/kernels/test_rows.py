"""Operations on single rows: the compiled ones equal their definitions in torch, in both dtypes."""

from __future__ import annotations

import shutil

import pytest
import torch
from append_case import HEADS, Q_HEADS, AppendCase, draw
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from seer_ray.kernels import compiled
from seer_ray.kernels.append import append, rotate_append
from seer_ray.kernels.norm import reference, rms_norm
from seer_ray.kernels.rotary import rotate
from seer_ray.models.gate import AttnGate

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (2, 5, 576), (100, 640)])
def test_norm_is_that_of_the_models(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight = draw(*shape, dtype=dtype) * 3, draw(shape[-1], dtype=dtype, seed=1)
    theirs = LlamaRMSNorm(shape[-1], eps=1e-5).to(dtype)
    theirs.weight.data = weight
    assert torch.equal(reference(x, weight, 1e-5), theirs(x))
    # Another order of summation: in bfloat16 a result may fall on the other side of a rounding, twice.
    step = 0.0 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), theirs(x).detach(), atol=2e-6, rtol=2e-6 + step)


def test_norm_lets_gradients_through() -> None:
    x = draw(4, 32).requires_grad_()
    rms_norm(x, torch.ones(32), 1e-6).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


@DTYPES
def test_rotation_and_append_bit_for_bit(dtype: torch.dtype) -> None:
    case = AppendCase.of(dtype)
    q, k, v, cos, sin, pages, offsets = case
    expected = torch.full(case.cache, float("nan"), dtype=dtype)
    append(rotate(k, cos, sin), v, expected, pages, offsets)
    found = torch.full_like(expected, float("nan"))
    # Strided as slices of one product would be.
    wide = torch.cat([q, k, v], dim=1)
    rotated = rotate_append(
        wide[:, :Q_HEADS],
        wide[:, Q_HEADS : Q_HEADS + HEADS],
        wide[:, -HEADS:],
        cos,
        sin,
        found,
        pages,
        offsets,
    )
    tolerance = 1e-6 if dtype == torch.float32 else 0.0  # fused multiply-add
    torch.testing.assert_close(rotated, rotate(q, cos, sin), atol=tolerance, rtol=0)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0, equal_nan=True)


@DTYPES
@pytest.mark.parametrize("use_rope", [True, False])
@pytest.mark.parametrize("use_qk_norm", [True, False])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["w32", "w16"])
def test_gate_query_is_its_definition(
    dtype: torch.dtype,
    weights: torch.dtype,
    use_qk_norm: bool,
    use_rope: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = AttnGate(
        num_query_heads=6,
        num_kv_heads=2,
        head_dim=24,
        gate_dim=40,
        block_size=16,
        rope_theta=10000.0 if use_rope else None,
        use_rope=use_rope,
        use_qk_norm=use_qk_norm,
        dtype=weights,
    ).requires_grad_(False)
    if use_qk_norm:
        gate.attngate_qnorm.weight.data = draw(40, dtype=weights, seed=3)
    q, positions = draw(9, 6, 24, dtype=dtype), torch.arange(9) * 1000
    found = gate.gate_query(q, positions)
    monkeypatch.setattr(compiled, "binary", lambda: None)
    torch.testing.assert_close(found, gate.gate_query(q, positions), atol=2e-6, rtol=2e-6)


def test_gates_in_training_take_the_definition() -> None:
    gate = AttnGate(
        num_query_heads=2, num_kv_heads=1, head_dim=8, gate_dim=8, block_size=4, rope_theta=10000.0
    )
    gate.gate_query(draw(3, 2, 8), torch.arange(3)).sum().backward()
    assert gate.attngate_linear_q.weight.grad is not None
