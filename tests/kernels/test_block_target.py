"""Attention by pairs of blocks, against the whole map in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from seer_ray.kernels import block_target
from seer_ray.kernels.block_target import attend_with_blocks
from seer_ray.kernels.rotary import rotate
from seer_ray.models.rope import RopeTable

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures" / "prefill_gate").glob("*.safetensors"))


def written_out(q, k, v, block, scale):
    """Output, largest pair of every two blocks with rows normalised, and mass: the whole map, in loops."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    tokens, blocks = len(q), -(-len(q) // block)
    logits = torch.einsum("thd,khd->htk", q, k) * scale
    p = logits.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), float("-inf")).softmax(-1)
    largest, mass = (torch.zeros(q.shape[1], blocks, blocks, dtype=torch.float64) for _ in range(2))
    for row in range(blocks):
        for column in range(row + 1):
            part = p[:, row * block : (row + 1) * block, column * block : (column + 1) * block]
            largest[:, row, column] = part.amax((1, 2))
            mass[:, row, column] = part.sum(2).mean(1)
    return torch.einsum("htk,khd->thd", p, v), largest / largest.sum(2, keepdim=True), mass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("tokens", "block"), [(100, 16), (64, 16), (7, 16), (130, 64), (33, 1)])
@pytest.mark.parametrize("logits", [2**24, 1])
def test_maps_are_those_of_the_whole(
    tokens: int, block: int, dtype: torch.dtype, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_target, "LOGITS", logits)
    draw = torch.Generator().manual_seed(tokens)
    q = 3 * torch.randn(tokens, 6, 8, generator=draw, dtype=torch.float64)
    k, v = torch.randn(2, tokens, 3, 8, generator=draw, dtype=torch.float64)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    out, maps = attend_with_blocks(q, k, v, block, 0.3)
    expected = written_out(q, k, v, block, 0.3)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for found, wanted in zip((out, *maps), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(maps.mass.sum(2), torch.ones_like(maps.mass[..., 0]))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_recorded_targets(path: Path) -> None:
    with safe_open(path, "pt") as file:
        meta = {key: json.loads(value) for key, value in file.metadata().items()}
        given = {key: file.get_tensor(key) for key in ("q_nope", "k_nope", "target")}
    dim = meta["head_dim"]
    rope = RopeTable.from_theta(meta["rope_theta"], dim, dtype=torch.float64)
    cos, sin = rope.at(torch.arange(meta["seq_len"]))
    q, k = (rotate(given[name], cos, sin) for name in ("q_nope", "k_nope"))
    _, maps = attend_with_blocks(q, k, k, meta["block_size"], dim**-0.5)
    torch.testing.assert_close(maps.largest, given["target"], atol=1e-5, rtol=0)
