"""Gate checkpoints: what is saved is loaded, and what does not fit is refused by name."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_config

from seer_ray.config.errors import ConfigError
from seer_ray.models.checkpoints import state_dict
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import (
    convert_gates,
    init_gates,
    load_gates,
    save_gates,
    seer_without_gates,
    temper_gates,
)

Capture = pytest.CaptureFixture[str]
CONFIG = tiny_config("qwen3")
SHAPE = GateConfig(block_size=16, gate_dim=8)
PREFIX = "model.layers.0.self_attn.attn_gate"
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 2.0, "original_max_position_embeddings": 512}


def saved(folder: Path, base_model: str = "tiny/tiny-qwen3") -> Path:
    return save_gates(folder / "gates", init_gates(CONFIG, SHAPE), CONFIG, base_model)


def edit(folder: Path, change: Callable[[dict], object]) -> str:
    """The folder with its weights changed."""
    file = folder / "attn_gate_weights.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    return str(folder)


def load(source: str | Path, config: object = CONFIG, block_size: int = 16, **kwargs: object) -> tuple:
    return load_gates(str(source), config, block_size, **kwargs)


# -- temperature -------------------------------------------------------------------------------------


def test_a_temperature_is_kept_with_the_gates(tmp_path: Path) -> None:
    plain = saved(tmp_path)
    assert "seerattn_gate_temperature" not in (plain / "config.json").read_text()
    heads = [(0.5, 2.0), (1.0, 1.25)]
    tempered = temper_gates(str(plain), tmp_path / "tempered", heads)
    gates = load(tempered)
    assert [gate.temperature for gate in gates] == heads
    assert torch.equal(gates[1].attngate_linear_k.weight, load(plain)[1].attngate_linear_k.weight)
    again = save_gates(tmp_path / "again", gates, CONFIG, "tiny/tiny-qwen3")
    assert [gate.temperature for gate in load(again)] == heads
    convert_gates(str(again), tmp_path / "released", pth=True)
    assert [gate.temperature for gate in load(tmp_path / "released")] == heads


@pytest.mark.parametrize(
    ("temperature", "message"),
    [
        (
            [[1.0, 2.0]],
            "seerattn_gate_temperature in their config.json must have, of each of 2 layers, 2 numbers",
        ),
        ([[1.0], [1.0]], "2 numbers, one for each KV head"),
        ([[1.0, 0.0], [1.0, 1.0]], "must be above 0, and finite"),
        ([[1.0, float("inf")], [1.0, 1.0]], "must be above 0, and finite"),
        ([1.0, 1.0], "must be lists of numbers"),
        ([["hot", 1.0], [1.0, 1.0]], "must be lists of numbers"),
    ],
)
def test_a_temperature_that_is_none_is_refused(tmp_path: Path, temperature: list, message: str) -> None:
    file = saved(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seerattn_gate_temperature": temperature}))
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "gates")


# -- round trips -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pth", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"q_pooling": "Qavgproj", "k_pooling": "Kmaxmin", "use_qk_norm": False},
        {"q_pooling": "Qavg", "gate_dim": 16, "use_rope": False},
        {"layers": (1,)},
    ],
    ids=str,
)
@torch.no_grad()
def test_round_trip(pth: bool, settings: dict, tmp_path: Path) -> None:
    gates = init_gates(CONFIG, GateConfig(**({"block_size": 16, "gate_dim": 8} | settings)), seed=3)
    loaded = load(save_gates(tmp_path, gates, CONFIG, "tiny/tiny-qwen3", pth))
    assert [gate is None for gate in loaded] == [gate is None for gate in gates]
    k, q, position = torch.randn(1, 40, 2, 16), torch.randn(1, 4, 16), torch.tensor([39])
    for mine, theirs in zip(gates, loaded, strict=True):
        if mine is not None:
            expected = mine.score(q, position, mine.compress_keys(k))
            assert torch.equal(theirs.score(q, position, theirs.compress_keys(k)), expected)
            assert not theirs.training and not any(p.requires_grad for p in theirs.parameters())


def test_keys_and_names_are_those_of_the_released_gates(tmp_path: Path) -> None:
    save_gates(tmp_path, init_gates(CONFIG, SHAPE), CONFIG, "tiny/tiny-qwen3", pth=True)
    weights = torch.load(tmp_path / "attn_gate_weights.pth", weights_only=True)
    assert {key: tuple(weights[key].shape) for key in weights if key.startswith(PREFIX)} == {
        f"{PREFIX}.attngate_linear_q.weight": (2, 2, 16, 8),
        f"{PREFIX}.attngate_linear_k.weight": (2, 48, 8),
        f"{PREFIX}.attngate_qnorm.weight": (8,),
        f"{PREFIX}.attngate_knorm.weight": (8,),
    }
    data = json.loads((tmp_path / "config.json").read_text())
    wanted = {
        "base_model": "tiny/tiny-qwen3",
        "seerattn_gate_block_size": 16,
        "seerattn_gate_hidden_size": 8,
        "seerattn_q_head_pooling_type": "Qproj",
        "seerattn_k_seq_pooling_type": "Kmaxminavg",
        "seerattn_use_qk_norm": True,
        "seerattn_use_rope": True,
        "num_hidden_layers": 2,
        "rope_theta": 10000.0,
        "rope_scaling": None,
    }
    assert {key: data[key] for key in wanted} == wanted


def test_a_file_beside_its_config_and_a_config_of_the_old_format(tmp_path: Path) -> None:
    """Released configs have rope_theta at the top, need no head_dim, and hold bfloat16 weights."""
    gates = init_gates(CONFIG, SHAPE)
    for gate in gates:
        gate.to(torch.bfloat16)
    save_gates(tmp_path, gates, CONFIG, "tiny/tiny-qwen3", pth=True)
    file = tmp_path / "config.json"
    data = json.loads(file.read_text())
    del data["rope_parameters"], data["seerattn_use_rope"], data["head_dim"]
    file.write_text(json.dumps(data))
    loaded = load(tmp_path / "attn_gate_weights.pth")
    assert loaded[0].dtype == torch.bfloat16
    assert torch.equal(loaded[1].attngate_linear_k.weight, gates[1].attngate_linear_k.weight)
    assert load(tmp_path, dtype=torch.float32)[0].dtype == torch.float32


@torch.no_grad()
def test_gates_take_the_scaled_rope_of_their_model(tmp_path: Path) -> None:
    config = tiny_config("llama", rope_parameters=YARN)
    gates = init_gates(config, SHAPE)
    loaded = load(save_gates(tmp_path, gates, config, "tiny/yarn"), config)
    assert loaded[0].rope.scaling > 1.0 and loaded[0].rope is loaded[1].rope
    assert torch.equal(loaded[0].rope.inv_freq, gates[0].rope.inv_freq)


def test_initial_gates_depend_on_the_seed_alone() -> None:
    one, same, other = (state_dict(init_gates(CONFIG, SHAPE, seed)) for seed in (0, 0, 1))
    key = f"{PREFIX}.attngate_linear_k.weight"
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one[key], other[key])
    assert not torch.equal(one[key], one[key.replace("layers.0", "layers.1")])
    assert all(gate.attngate_linear_q.weight.requires_grad for gate in init_gates(CONFIG, SHAPE))


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda w: w.pop(f"{PREFIX}.attngate_linear_q.weight"),
            "1 missing, first {}.attngate_linear_q.weight",
        ),
        (lambda w: w.update({"layers.9.extra": torch.zeros(1)}), "1 too many, first layers.9.extra"),
        (
            lambda w: w.update({f"{PREFIX}.attngate_linear_k.weight": torch.zeros(2, 16, 8)}),
            "1 misshapen, first {}.attngate_linear_k.weight: [2, 16, 8], must be [2, 48, 8]",
        ),
        (lambda w: w.clear(), "8 missing"),
        (
            lambda w: w.update({f"{PREFIX}.mask_linear_k.weight": torch.zeros(4, 48, 8)}),
            "SeerAttention v1 gates, for sparse prefill",
        ),
    ],
    ids=["missing", "extra", "misshapen", "empty", "prefill"],
)
def test_weights_that_do_not_fit(change: Callable[[dict], object], words: str, tmp_path: Path) -> None:
    source = edit(saved(tmp_path), change)
    with pytest.raises(ConfigError, match=re.escape(words.format(PREFIX))) as caught:
        load(source)
    assert str(caught.value).startswith(f"model.gates={source}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"num_hidden_layers": 3}, "layers 2, here 3"),
        ({"num_attention_heads": 8}, "query heads 4, here 8"),
        ({"num_key_value_heads": 4}, "KV heads 2, here 4"),
        ({"head_dim": 32}, "head dim 16, here 32"),
        ({"hidden_size": 96}, "hidden size 64, here 96"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            r"RoPE theta 10000\.0, here 500000\.0",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_gates_of_another_model(overrides: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"gates of tiny/tiny-qwen3: {words}$"):
        load(saved(tmp_path), tiny_config("qwen3", **overrides))


def test_base_model_is_compared_by_name_where_both_are_hub_ids(tmp_path: Path) -> None:
    source = saved(tmp_path)
    for name, fits in [
        ("tiny/tiny-qwen3", True),
        ("mirror/Tiny-Qwen3", True),
        (str(tmp_path), True),
        ("tiny/tiny-qwen2", False),
    ]:
        config = tiny_config("qwen3")
        config.name_or_path = name
        if fits:
            assert len(load(source, config)) == 2
        else:
            with pytest.raises(ConfigError, match="base model tiny-qwen3, here tiny-qwen2"):
                load(source, config)


def test_another_block_size(tmp_path: Path) -> None:
    words = (
        r"^engine\.block_size=64: .* blocks of 16 tokens, and a block is a page; set engine\.block_size=16$"
    )
    with pytest.raises(ConfigError, match=words):
        load(saved(tmp_path), block_size=64)


@pytest.mark.parametrize(
    "data, words",
    [
        (
            {"seerattn_gate_type": "Qavg_Kmaxminavg", "seerattn_gate_block_size": 64},
            "v1 gates",
        ),
        ({"model_type": "qwen3"}, "does not describe gates"),
        ({"seerattn_gate_block_size": 64}, "lacks seerattn_gate_hidden_size, "),
        ("{", "cannot read config.json"),
        (None, "cannot read config.json"),
    ],
    ids=["prefill", "a model", "incomplete", "torn", "none"],
)
def test_configs_that_are_not_of_gates(data: dict | str | None, words: str, tmp_path: Path) -> None:
    source = saved(tmp_path)
    file = source / "config.json"
    if data is None:
        file.unlink()
    else:
        file.write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(ConfigError, match=words):
        load(source)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "gates.bin").touch()
    for source, words in {
        str(tmp_path / "nowhere"): "no such file or folder",
        str(tmp_path / "empty"): "has none of attn_gate_weights.safetensors, attn_gate_weights.pth",
        str(tmp_path / "gates.bin"): "must be a .pth or .safetensors file, a folder or a hub id",
        "nobody/no-gates": "no such file or folder here, and as a hub id it is not in the local cache",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(f"model.gates={source}: {words}")):
            load(source)


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("code of the checkpoint ran",))


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Evil(), 2), b"", b"PK\x03\x04 torn", b"\x80\x02torn"],
    ids=["code", "empty", "zip", "pickle"],
)
def test_a_pickle_with_code_or_a_torn_file(content: bytes, tmp_path: Path, capsys: Capture) -> None:
    save_gates(tmp_path, init_gates(CONFIG, SHAPE), CONFIG, "tiny/tiny-qwen3", pth=True)
    (tmp_path / "attn_gate_weights.pth").write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read attn_gate_weights\.pth") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_a_torn_safetensors_file_and_a_pth_that_is_no_dict(tmp_path: Path) -> None:
    source = saved(tmp_path)
    (source / "attn_gate_weights.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"cannot read attn_gate_weights\.safetensors"):
        load(source)
    save_gates(tmp_path / "pth", init_gates(CONFIG, SHAPE), CONFIG, "tiny/tiny-qwen3", pth=True)
    torch.save([torch.zeros(1)], tmp_path / "pth" / "attn_gate_weights.pth")
    with pytest.raises(ConfigError, match="must hold tensors by name"):
        load(tmp_path / "pth")


def test_seer_without_gates_names_the_three_ways() -> None:
    for model, example in [("Qwen/Qwen3-8B", "Decode-Qwen3-8B-AttnGates"), ("smollm2", "Decode-Qwen3-4B")]:
        message = str(seer_without_gates(model))
        assert message.startswith("selector.name=seer:") and "\n" not in message
        assert all(words in message for words in (model, example, "model.gates", "seer-ray distill", "quest"))
