"""Checkpoints with weights in 8 bits: each layout gives the weights that are meant, or is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_tiny, save_tiny, tiny_tokenizer
from tiny_gguf import model_of
from torch import Tensor

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models.group import Group
from seer_ray.models.load import load_config, load_model

FLOAT8, INT8 = torch.float8_e4m3fn, torch.int8
LARGEST = {FLOAT8: 448.0, torch.float8_e5m2: 57344.0, INT8: 127.0}
LINEAR = re.compile(r".*_proj\.weight")

Parts = tuple[Tensor, Tensor, Tensor]
"""What is stored, its scale, and what is meant."""


def rounded(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    divided = weight / scale
    return (divided.round() if dtype == INT8 else divided).to(dtype)


def by_tensor(weight: Tensor, dtype: torch.dtype, shape: tuple[int, ...] = ()) -> Parts:
    scale = weight.abs().max() / LARGEST[dtype]
    stored = rounded(weight, scale, dtype)
    return stored, scale.reshape(shape), stored.float() * scale


def by_channel(weight: Tensor, dtype: torch.dtype, flat: bool = False) -> Parts:
    scale = weight.abs().amax(1, keepdim=True) / LARGEST[dtype]
    stored = rounded(weight, scale, dtype)
    return stored, scale.flatten() if flat else scale, stored.float() * scale


def by_block(weight: Tensor, dtype: torch.dtype, rows: int, columns: int) -> Parts:
    outputs, inputs = weight.shape
    scale = torch.empty(-(-outputs // rows), -(-inputs // columns))
    whole = torch.empty_like(weight)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            part = (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))
            scale[i, j] = weight[part].abs().max() / LARGEST[dtype]
            whole[part] = scale[i, j]
    stored = rounded(weight, whole, dtype)
    return stored, scale, stored.float() * whole


MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
TENSORS = {"quant_method": "compressed-tensors", "format": "float-quantized"}
GROUPS = {"config_groups": {"group_0": {"weights": {"num_bits": 8, "block_structure": [24, 32]}}}}
LAYOUTS: dict[str, tuple[dict[str, Any] | None, str, Callable[[Tensor], Parts]]] = {
    "modelopt": (MODELOPT, "weight_scale", lambda w: by_tensor(w, FLOAT8)),
    "modelopt, own file": (None, "weight_scale", lambda w: by_tensor(w, FLOAT8)),
    "nothing said": (None, "weight_scale", lambda w: by_tensor(w, FLOAT8, (1,))),
    "nothing said, int8": (None, "weight_scale", lambda w: by_channel(w, INT8)),
    "nothing said, e5m2": (None, "weight_scale", lambda w: by_tensor(w, torch.float8_e5m2)),
    "fp8 by blocks": (
        FP8 | {"weight_block_size": [32, 16]},
        "weight_scale_inv",
        lambda w: by_block(w, FLOAT8, 32, 16),
    ),
    "blocks that do not divide": (
        FP8 | {"weight_block_size": [24, 40]},
        "weight_scale_inv",
        lambda w: by_block(w, FLOAT8, 24, 40),
    ),
    "fp8 by tensor": (FP8, "weight_scale_inv", lambda w: by_tensor(w, FLOAT8)),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, "weight_scale", lambda w: by_channel(w, FLOAT8)),
    "float by channel": (TENSORS, "weight_scale", lambda w: by_channel(w, FLOAT8)),
    "float by channel, flat": (TENSORS, "weight_scale", lambda w: by_channel(w, FLOAT8, flat=True)),
    "int by channel": (TENSORS, "weight_scale", lambda w: by_channel(w, INT8)),
    "int by group": (TENSORS, "weight_scale", lambda w: by_block(w, INT8, 1, 16)),
    "compressed by blocks": (TENSORS | GROUPS, "weight_scale", lambda w: by_block(w, FLOAT8, 24, 32)),
    "scale in bfloat16": (
        TENSORS,
        "weight_scale",
        lambda w: (lambda q, s, _: (q, s.bfloat16(), q.float() * s.bfloat16().float()))(
            *by_channel(w, FLOAT8)
        ),
    ),
}
"""Name -> ``quantization_config``, name of the scale, how a weight is stored."""


def write(
    folder: Path, said: dict[str, Any] | None, scale: str, store: Callable[[Tensor], Parts], model: Any
) -> Any:
    """A checkpoint whose linear layers are quantised; gives the model that is meant."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    weights, meant = load_file(folder / "model.safetensors"), model.state_dict()
    for name in [name for name in weights if LINEAR.fullmatch(name)]:
        stored, scales, whole = store(weights[name])
        weights[name], weights[name.removesuffix("weight") + scale] = stored, scales
        if name in meant:
            meant[name].copy_(whole)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if said is not None:
        say(folder, quantization_config=said)
    return model


def say(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder: Path, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^model.name={re.escape(str(folder))}: .*{words}") as caught:
        load_model(ModelConfig(name=str(folder), device="cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_weights_are_those_that_are_meant(layout: str, tmp_path: Path) -> None:
    said, scale, store = LAYOUTS[layout]
    model = write(tmp_path, said, scale, store, make_tiny("qwen3"))
    if "own file" in layout:
        text = {
            "producer": {"name": "modelopt"},
            "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
        }
        (tmp_path / "hf_quant_config.json").write_text(json.dumps(text))
        names = [f"model.layers.0.self_attn.{name}" for name in ("k_proj.k_scale", "q_proj.input_scale")]
        change(tmp_path, lambda weights: weights.update({name: torch.ones(()) for name in names}))
    loaded = load_model(ModelConfig(name=str(tmp_path), device="cpu"))
    assert loaded.dtype == torch.float32 and getattr(loaded.hf_config, "quantization_config", None) is None
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(
            loaded.model.state_dict()[name], weight, msg=lambda text, name=name: f"{name}: {text}"
        )
    half = load_model(ModelConfig(name=str(tmp_path), dtype="bfloat16", device="cpu")).model
    assert torch.equal(
        half.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.up_proj.weight.bfloat16()
    )


@torch.no_grad()
def test_a_mixture_of_experts_and_a_rank_of_two(tmp_path: Path) -> None:
    model = model_of("qwen3_moe")
    expected = model.state_dict()
    before = {name: expected[name].clone() for name in expected}
    model = write(tmp_path, MODELOPT, "weight_scale", lambda w: by_tensor(w, FLOAT8), model)
    loaded = load_model(ModelConfig(name=str(tmp_path), device="cpu")).model
    part = load_model(ModelConfig(name=str(tmp_path), device="cpu"), Group(1, 2)).model
    query = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(part.state_dict()[query], model.state_dict()[query].chunk(2)[1])
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, before[name], atol=0.05, rtol=0.1)  # of experts too


METHODS = (
    "bitsandbytes",
    "awq",
    "gptq",
    "mxfp4",
    "nvfp4",
    "torchao",
    "quark",
    "compressed_tensors",
    "mine",
    None,
)


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_refused_before_weights_are_read(method: str | None, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama")
    say(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(
        ConfigError, match=f"quant_method={method}; supported are modelopt, fp8, .*take the checkpoint in"
    ):
        load_config(ModelConfig(name=str(folder)))


Edit = Callable[[dict[str, Tensor]], Any]
Q = "model.layers.0.self_attn.q_proj"
UNREADABLE: dict[str, tuple[str, Edit, str]] = {
    "no scale": (
        "modelopt",
        lambda w: w.pop(f"{Q}.weight_scale"),
        f"{Q}.weight is stored as F8_E4M3 .* with no weight_scale",
    ),
    "both scales": (
        "modelopt",
        lambda w: w.update({f"{Q}.weight_scale_inv": torch.ones(())}),
        f"{Q}.weight is stored as F8_E4M3 .* with both of its scales",
    ),
    "packed": (
        "modelopt",
        lambda w: w.update({f"{Q}.weight": torch.ones(64, 32, dtype=torch.uint8)}),
        "is stored as U8",
    ),
    "two scales of three": (
        "modelopt",
        lambda w: w.update({f"{Q}.weight_scale": torch.ones(3)}),
        r"\[3\] beside a weight of \[64, 64\].*not clear",
    ),
    "blocks of unknown size": (
        "fp8 by tensor",
        lambda w: w.update({f"{Q}.weight_scale_inv": torch.ones(2, 4)}),
        r"\[2, 4\] beside a weight of \[64, 64\] and no block size in the config",
    ),
    "blocks of another size": (
        "fp8 by blocks",
        lambda w: w.update({f"{Q}.weight_scale_inv": torch.ones(4, 4)}),
        r"\[4, 4\] beside a weight of \[64, 64\] with blocks of \[32, 16\]",
    ),
    "zero points": (
        "int by channel",
        lambda w: w.update({f"{Q}.weight_zero_point": torch.ones(64, 1)}),
        f"1 weights are in the files and not in the model, first {Q}.weight_zero_point",
    ),
    "scales of inputs": (
        "modelopt",
        lambda w: w.update({f"{Q}.pre_quant_scale": torch.ones(64)}),
        f"first {Q}.pre_quant_scale",
    ),
    "scales of scales": (
        "modelopt",
        lambda w: w.update({f"{Q}.weight_scale_2": torch.ones(())}),
        f"{Q}.weight_scale_2",
    ),
    "nothing in 8 bits": (
        "modelopt",
        lambda w: w.update({name: tensor.float() for name, tensor in w.items()}),
        "quant_method=modelopt, but no weight is stored in 8 bits",
    ),
}


@pytest.mark.parametrize("what", UNREADABLE)
@torch.no_grad()
def test_what_cannot_be_read_for_sure_is_refused(what: str, tmp_path: Path) -> None:
    layout, edit, words = UNREADABLE[what]
    write(tmp_path, *LAYOUTS[layout], make_tiny("qwen3"))
    change(tmp_path, edit)
    refused(tmp_path, words)


@pytest.mark.parametrize("setting", ["transform_config", "sparsity_config"])
def test_more_than_scales_is_refused(setting: str, tmp_path: Path) -> None:
    say(save_tiny(tmp_path, "qwen3"), quantization_config=TENSORS | {setting: {"config_groups": {"R1": {}}}})
    refused(tmp_path, f"quant_method=compressed-tensors with {setting} is not supported")


PLAIN: dict[str, tuple[str, Edit, str]] = {
    "raw float8": (
        "qwen3",
        lambda w: w.update({f"{Q}.weight": w[f"{Q}.weight"].to(FLOAT8)}),
        "with no weight_scale",
    ),
    "raw int8": (
        "qwen3",
        lambda w: w.update({f"{Q}.weight": w[f"{Q}.weight"].to(INT8)}),
        "stored as I8 .no quantization",
    ),
    "scales alone": (
        "qwen3",
        lambda w: w.update({f"{Q}.weight_scale": torch.ones(())}),
        f"1 weights are in the files and not in the model, first {Q}.weight_scale",
    ),
    "biases": (
        "llama",
        lambda w: w.update(
            {f"model.layers.{n}.self_attn.{x}_proj.bias": torch.ones(64) for n in (0, 1) for x in "qo"}
        ),
        "4 weights are in the files and not in the model, first model.layers.0.self_attn.o_proj.bias",
    ),
    "norms of heads": (
        "llama",
        lambda w: w.update({"model.layers.1.self_attn.q_norm.weight": torch.ones(16)}),
        "first model.layers.1.self_attn.q_norm.weight",
    ),
    "a layer too many": (
        "llama",
        lambda w: w.update({"model.layers.2.mlp.up_proj.weight": torch.ones(128, 64)}),
        "first model.layers.2.mlp.up_proj.weight",
    ),
    "a part missing": ("llama", lambda w: w.pop(f"{Q}.weight"), f"1 weights are missing, first {Q}.weight"),
    "another width": (
        "llama",
        lambda w: w.update({f"{Q}.weight": torch.ones(32, 64)}),
        rf"1 weights are of another shape, first {Q}.weight: \[32, 64\], must be \[64, 64\]",
    ),
    "several": (
        "llama",
        lambda w: (w.pop(f"{Q}.weight"), w.update({"x.y": torch.ones(2)})),
        "1 weights are missing, first .*; 1 weights are in the files and not in the model, first x.y",
    ),
}


@pytest.mark.parametrize("what", PLAIN)
def test_what_is_in_the_files_is_what_the_model_has(what: str, tmp_path: Path) -> None:
    family, edit, words = PLAIN[what]
    change(save_tiny(tmp_path, family), edit)
    refused(tmp_path, words)


def test_buffers_of_older_versions_are_no_weights(tmp_path: Path) -> None:
    names = ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")
    change(save_tiny(tmp_path, "llama"), lambda w: w.update({name: torch.ones(8) for name in names}))
    load_model(ModelConfig(name=str(tmp_path), device="cpu"))


def test_a_head_that_is_stored_though_it_is_tied(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama", tie_word_embeddings=True)
    change(folder, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    model = load_model(ModelConfig(name=str(folder), device="cpu")).model
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
