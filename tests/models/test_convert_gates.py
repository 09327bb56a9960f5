"""Gates from our format into the released one and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import make_tiny

from seer_ray.config.errors import ConfigError
from seer_ray.models.checkpoints import state_dict
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import convert_gates, init_gates, load_gates, save_gates


def test_there_and_back(tmp_path: Path) -> None:
    config = make_tiny("qwen3").config
    gates = init_gates(config, GateConfig(block_size=16, gate_dim=8))
    save_gates(tmp_path / "ours", gates, config, "tiny")
    count = convert_gates(str(tmp_path / "ours"), tmp_path / "theirs", pth=True)
    assert count == sum(weight.numel() for weight in state_dict(gates).values())
    assert (
        torch.load(tmp_path / "theirs/attn_gate_weights.pth", weights_only=True).keys()
        == state_dict(gates).keys()
    )
    convert_gates(str(tmp_path / "theirs"), tmp_path / "back", pth=False)
    for name in ("attn_gate_weights.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "theirs").iterdir()) == [
        "attn_gate_weights.pth",
        "config.json",
    ]


def test_to_half_precision(tmp_path: Path) -> None:
    config = make_tiny("qwen3").config
    save_gates(tmp_path / "a", init_gates(config, GateConfig(block_size=16, gate_dim=8)), config, "tiny")
    convert_gates(str(tmp_path / "a"), tmp_path / "b", pth=False, dtype=torch.bfloat16)
    gate = load_gates(str(tmp_path / "b"), config, 16)[0]
    assert gate is not None and gate.dtype == torch.bfloat16


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    config = make_tiny("qwen3").config
    save_gates(tmp_path, init_gates(config, GateConfig(block_size=16, gate_dim=8)), config, "tiny")
    with pytest.raises(ConfigError, match=r"has attn_gate_weights.safetensors already; name another folder"):
        convert_gates(str(tmp_path), tmp_path, pth=True)
    with pytest.raises(ConfigError, match=r"^gates=.*nowhere: no such file or folder"):
        convert_gates(str(tmp_path / "nowhere"), tmp_path / "x", pth=True)
