"""Rotary embedding and its inverse."""

from __future__ import annotations

import pytest
import torch

from seer_ray.kernels.rotary import rotate, unrotate
from seer_ray.models.rope import RopeTable

POSITIONS = torch.tensor([0, 1, 63, 64, 1000, 30_000])


def test_rotation_is_a_complex_product() -> None:
    x = torch.randn(len(POSITIONS), 3, 8)
    cos, sin = RopeTable.from_theta(10_000.0, 8, dtype=torch.float64).at(POSITIONS)
    as_complex = torch.complex(x[..., :4], x[..., 4:])
    angle = torch.complex(cos[:, None, :4], sin[:, None, :4])
    expected = as_complex * angle
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat((expected.real, expected.imag), dim=-1))


@pytest.mark.parametrize("scaling", [1.0, 1.2])
def test_inverse(scaling: float) -> None:
    """Scaling in the tables, as YaRN has it, is divided out."""
    table = RopeTable(RopeTable.from_theta(10_000.0, 64).inv_freq, scaling)
    cos, sin = table.at(POSITIONS)
    x = torch.randn(len(POSITIONS), 3, 64)
    turned = rotate(x, cos, sin)
    torch.testing.assert_close(turned.norm(dim=-1), scaling * x.norm(dim=-1))
    torch.testing.assert_close(unrotate(turned, cos, sin), x, rtol=1e-5, atol=1e-5)


def test_dtypes() -> None:
    """Rotation stays in the model's dtype, its inverse is fp32."""
    cos, sin = RopeTable.from_theta(10_000.0, 64).at(POSITIONS)
    x = torch.randn(len(POSITIONS), 3, 64).bfloat16()
    turned = rotate(x, cos, sin)
    back = unrotate(turned, cos, sin)
    assert turned.dtype == torch.bfloat16 and back.dtype == torch.float32
    torch.testing.assert_close(back, x.float(), rtol=0.02, atol=0.04)
