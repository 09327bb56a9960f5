"""The gate of sparse prefill: recorded numbers, chunks, and its checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_config

from seer_ray.config.errors import ConfigError
from seer_ray.kernels.blocks import Amount, select_blocks
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import convert_gates, init_gates, load_gates, save_gates
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.prefill_gates import (
    PrefillGateConfig,
    init_prefill_gates,
    load_prefill_gates,
    save_prefill_gates,
)

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures" / "prefill_gate").glob("*.safetensors"))
CONFIG = tiny_config("qwen3")
SHAPE = PrefillGateConfig(block_size=16, gate_dim=16)


def recorded(path: Path) -> tuple[PrefillGate, dict, dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        meta = {key: json.loads(value) for key, value in file.metadata().items()}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    gate = PrefillGate(
        num_query_heads=meta["num_query_heads"],
        num_kv_heads=meta["num_kv_heads"],
        head_dim=meta["head_dim"],
        gate_dim=meta["gate_hidden_size"],
        block_size=meta["block_size"],
        rope_theta=meta["rope_theta"],
        q_pooling=meta["q_pooling"],
        k_pooling=meta["k_pooling"],
    )
    gate.load_state_dict({k.removeprefix("gate."): v for k, v in tensors.items() if k.startswith("gate.")})
    return gate, meta, tensors


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@torch.no_grad()
def test_recorded_numbers(path: Path) -> None:
    gate, meta, expected = recorded(path)
    logits = gate.score(expected["q_nope"], expected["k_nope"])
    torch.testing.assert_close(logits, expected["block_logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.softmax(-1), expected["block_probs"], atol=1e-5, rtol=0)
    blocks = logits.shape[2]
    amount = Amount(threshold=meta["threshold"])
    chosen = select_blocks(logits, torch.arange(blocks), blocks, amount, sink=False)
    assert torch.equal(chosen, expected["threshold_mask"])


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@torch.no_grad()
def test_chunks_score_as_the_whole_does(path: Path) -> None:
    gate, _, given = recorded(path)
    q, k, block = given["q_nope"], given["k_nope"], gate.block_size
    whole = gate.score(q, k)
    for start in range(0, len(q), 3 * block):
        end = min(start + 3 * block, len(q))
        rows, columns = slice(start // block, -(-end // block)), -(-end // block)
        chunk = gate.score(q[start:end], k[:end], start)
        torch.testing.assert_close(chunk, whole[:, rows, :columns], atol=1e-5, rtol=1e-5)
        alone = gate.score(q[start:end], k[start:end], start)
        torch.testing.assert_close(alone, whole[:, rows, rows], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="do not begin at multiples of"):
        gate.score(q[1:], k[1:], 1)


def test_there_are_fixtures() -> None:
    assert len(FIXTURES) == 3


@pytest.mark.parametrize("pooling", [(), ("avg", "avg"), ("mean",)])
def test_poolings_that_are_none(pooling: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"q pooling .*must be some of max, min, avg, each once"):
        PrefillGate(
            num_query_heads=2, num_kv_heads=1, head_dim=8, gate_dim=8, block_size=4, q_pooling=pooling
        )


# -- checkpoints -------------------------------------------------------------------------------------


def saved(folder: Path, shape: PrefillGateConfig = SHAPE, pth: bool = False) -> Path:
    return save_prefill_gates(folder, init_prefill_gates(CONFIG, shape, 3), CONFIG, "tiny/tiny-qwen3", pth)


@pytest.mark.parametrize("pth", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        replace(SHAPE, gate_dim=8),
        replace(SHAPE, q_pooling=("max", "avg"), k_pooling=("min",)),
        replace(SHAPE, two_projections=True),
        replace(SHAPE, layers=(1,)),
    ],
    ids=lambda shape: f"{shape.type}-{shape.gate_dim}-{shape.two_projections}-{shape.layers}",
)
@torch.no_grad()
def test_round_trip(pth: bool, shape: PrefillGateConfig, tmp_path: Path) -> None:
    gates = init_prefill_gates(CONFIG, shape, 3)
    loaded = load_prefill_gates(str(saved(tmp_path, shape, pth)), CONFIG, 16)
    assert [gate is None for gate in loaded] == [gate is None for gate in gates]
    q, k = torch.randn(40, 4, 16), torch.randn(40, 2, 16)
    for mine, theirs in zip(gates, loaded, strict=True):
        if mine is not None:
            assert torch.equal(theirs.score(q, k), mine.score(q, k))
            assert not theirs.training and not any(p.requires_grad for p in theirs.parameters())


def test_names_are_those_of_the_released_gates(tmp_path: Path) -> None:
    weights = torch.load(saved(tmp_path, pth=True) / "attn_gate_weights.pth", weights_only=True)
    prefix = "model.layers.0.self_attn.attn_gate.mask_linear_k.weight"
    assert tuple(weights[prefix].shape) == (4, 48, 16) and len(weights) == 2
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["seerattn_gate_type"] == "Qavg_Kmaxminavg" and config["seerattn_gate_block_size"] == 16


def test_conversion_keeps_the_weights(tmp_path: Path) -> None:
    source = saved(tmp_path / "a")
    convert_gates(str(source), tmp_path / "b", pth=True)
    again = load_prefill_gates(str(tmp_path / "b"), CONFIG, 16)
    assert torch.equal(
        again[0].mask_linear_k.weight, load_prefill_gates(str(source), CONFIG, 16)[0].mask_linear_k.weight
    )


def refusal(source: Path, config: object = CONFIG, block: int = 16) -> str:
    with pytest.raises(ConfigError) as error:
        load_prefill_gates(str(source), config, block)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(source), "GATES")


def test_gates_of_another_model_are_refused(tmp_path: Path) -> None:
    other = tiny_config("qwen3", num_attention_heads=8)
    found = refusal(saved(tmp_path), other)
    assert found == ("model.prefill_gates=GATES: these are gates of tiny/tiny-qwen3: query heads 4, here 8")


@pytest.mark.parametrize("block", [8, 24, 64])
def test_a_block_size_that_is_not_the_pages(tmp_path: Path, block: int) -> None:
    assert refusal(saved(tmp_path), block=block) == (
        f"engine.block_size={block}: model.prefill_gates=GATES was trained with blocks of 16 tokens, and a "
        "block is a page; set engine.block_size=16"
    )


def test_missing_extra_and_misshapen_weights_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path)
    file = source / "attn_gate_weights.safetensors"
    weights = load_file(file)
    key = "model.layers.0.self_attn.attn_gate.mask_linear_k.weight"
    save_file({key: weights[key][:2].clone(), "other": weights[key]}, file)
    found = refusal(source)
    assert "1 missing" in found and "1 too many, first other" in found and "1 misshapen" in found


def test_either_kind_is_refused_for_the_other(tmp_path: Path) -> None:
    decode = save_gates(tmp_path / "d", init_gates(CONFIG, GateConfig(16, 8)), CONFIG, "tiny/tiny-qwen3")
    assert "does not describe prefill gates" in refusal(decode)
    with pytest.raises(ConfigError, match=r"for sparse prefill \(model.prefill_gates\)"):
        load_gates(str(saved(tmp_path / "p")), CONFIG, 16)
    config = tmp_path / "p" / "config.json"
    config.write_text(config.read_text().replace("Qavg_Kmaxminavg", "Qmean_K"))
    assert "seerattn_gate_type=Qmean_K: must be Q, _K and" in refusal(tmp_path / "p")
