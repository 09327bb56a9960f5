"""What must hold of the Triton kernels between products, on any device; see ``triton_checks``."""

from __future__ import annotations

import torch
from paged_case import kept_as
from torch.nn.functional import silu

from seer_ray.kernels import triton_append, triton_rows, triton_score
from seer_ray.kernels.append import Norms, append
from seer_ray.kernels.norm import reference as rms_norm
from seer_ray.kernels.rotary import rotate

CLOSE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Of one rounding, relative."""


def draw(*shape: int, dtype: torch.dtype, device: str, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=CLOSE[found.dtype], atol=CLOSE[found.dtype])


def add_norm_is_its_definition(device: str, dtype: torch.dtype, width: int, rows: int = 5) -> None:
    """Sum and norm, the sum bit for bit; strided rows; without a sum; each row alone."""
    x = draw(rows, 2 * width, dtype=dtype, device=device, seed=width)[:, :width]
    delta = draw(1, rows, width, dtype=dtype, device=device, seed=width + 1)
    weight = draw(width, dtype=dtype, device=device, seed=width + 2)
    total, found = triton_rows.add_norm(x.unsqueeze(0), delta, weight, 1e-5)
    assert total.shape == found.shape == (1, rows, width)
    assert torch.equal(total, x.unsqueeze(0) + delta)
    close(found, rms_norm(total, weight, 1e-5))
    same, found = triton_rows.add_norm(x, None, weight, 1e-5)
    assert torch.equal(same, x)
    close(found, rms_norm(x, weight, 1e-5))
    for row in range(rows):
        assert torch.equal(triton_rows.add_norm(x[row : row + 1], None, weight, 1e-5)[1][0], found[row])


def silu_product_is_its_definition(device: str, dtype: torch.dtype, inner: int, rows: int = 3) -> None:
    both = draw(rows, 2 * inner, dtype=dtype, device=device, seed=inner)
    gate, up = both.split(inner, dim=1)
    close(triton_rows.silu_product(both), silu(gate) * up)


def norms_before_rotation(
    device: str,
    dtype: torch.dtype,
    dim: int,
    group: int,
    kv_dtype: torch.dtype | None = None,
    tokens: int = 4,
) -> None:
    """Queries before and after rotation, and the cache, of strided parts of one product."""
    heads, block = 2, 16
    mixed = draw(tokens, (group + 2) * heads * dim, dtype=dtype, device=device, seed=dim)
    sizes = [group * heads * dim, heads * dim, heads * dim]
    q, k, v = (x.view(tokens, -1, dim) for x in mixed.split(sizes, dim=1))
    weights = (1 + 0.5 * draw(dim, dtype=dtype, device=device, seed=n) for n in (1, 2))
    norms = Norms(*weights, 1e-6)
    angle = 100 * draw(tokens, dim // 2, dtype=torch.float32, device=device, seed=3)
    cos, sin = (torch.cat((x, x), dim=1) for x in (angle.cos(), angle.sin()))
    pages, offsets = (torch.arange(1, tokens + 1, device=device) + n for n in (0, 2))
    zeros = torch.zeros(tokens + 2, heads, 2, block, dim, dtype=dtype, device=device)
    found, expected = kept_as(zeros.clone(), kv_dtype), kept_as(zeros, kv_dtype)
    normal, turned = triton_append.normalise_rotate_append(q, k, v, norms, cos, sin, found, pages, offsets)
    q, k = rms_norm(q, norms.q, norms.eps), rms_norm(k, norms.k, norms.eps)
    append(rotate(k, cos, sin), v, expected, pages, offsets)
    close(normal, q)
    close(turned, rotate(q, cos, sin))
    least = 0.0 if kv_dtype is None else 0.02  # of the largest, a step of 8 bits
    difference = (found[:].float() - expected[:].float()).abs().max()
    assert difference <= CLOSE[dtype] * 8 + least * expected[:].float().abs().max()


def bound_is_its_definition(device: str, dtype: torch.dtype, group: int, dim: int, rows: int = 3) -> None:
    heads, block, width = 2, 16, 40
    q = draw(rows, heads, group, dim, dtype=dtype, device=device, seed=dim)
    keys = draw(3 * width, heads, 2, dim, dtype=dtype, device=device, seed=group)
    summary = torch.cat((keys.amax(2), keys.amin(2)), dim=-1)
    chance = torch.Generator().manual_seed(dim)
    table = torch.randint(1, 3 * width, (rows, width), generator=chance).to(device)
    lengths = torch.tensor([width * block, 5 * block, 1], device=device)
    found = triton_score.bound(q, summary, table, lengths, block, 0.3)
    high, low = summary[table].double().unflatten(-1, (2, dim)).unbind(-2)  # [rows, width, heads, dim]
    wide = q.double().permute(0, 2, 1, 3).unsqueeze(2) * 0.3  # [rows, group, 1, heads, dim]
    terms = torch.maximum(wide * high.unsqueeze(1), wide * low.unsqueeze(1))
    expected = terms.sum(-1).amax(1).transpose(1, 2)
    complete = (torch.arange(width, device=device) < (lengths // block).unsqueeze(1)).unsqueeze(1)
    torch.testing.assert_close(
        torch.where(complete, found, 0), torch.where(complete, expected, 0).float(), rtol=1e-5, atol=3e-5
    )
