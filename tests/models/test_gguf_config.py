"""GGUF files compute what the model from which they were written computes, or are refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gguf import ARCHITECTURES, llama3_factors, model_of, write_gguf

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models.gguf import gguf_config
from seer_ray.models.load import load_config, load_model
from seer_ray.models.rope import RopeTable
from seer_ray.models.weights import load_weights

pytest.importorskip("gguf")

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 256}
YARN_KEYS = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 256,
}
FULL_YARN = YARN | {"attention_factor": 1.7, "beta_fast": 24.0, "beta_slow": 2.0}
FULL_YARN_KEYS = YARN_KEYS | {
    "rope.scaling.yarn_attn_factor": 1.7,
    "rope.scaling.yarn_beta_fast": 24.0,
    "rope.scaling.yarn_beta_slow": 2.0,
    "rope.scaling.yarn_ext_factor": 1.0,
}
ROPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {"rope.scaling.type": "none"}),
    "linear": (
        {"rope_type": "linear", "factor": 4.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "factor alone": ({"rope_type": "linear", "factor": 4.0}, {"rope.scaling.factor": 4.0}),
    "older name": ({"rope_type": "linear", "factor": 2.0}, {"rope.scale_linear": 2.0}),
    "yarn": ({"rope_type": "yarn", **YARN}, YARN_KEYS),
    "yarn in full": ({"rope_type": "yarn", **FULL_YARN}, FULL_YARN_KEYS),
    "llama3": ({"rope_type": "llama3", **LLAMA3}, {}),
    "llama3 of other factors": (
        {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 0.7, "high_freq_factor": 9.0, "factor": 5.0},
        {},
    ),
}
"""Kind -> what the model's config has, and what the file's metadata has."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rope(parameters: dict[str, Any], theta: float = 1e4) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **parameters}}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Far enough for every kind of scaling to matter."""
    return model(torch.randint(0, 256, (1, 300), generator=torch.Generator().manual_seed(0))).logits


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To the rounding of float32, and so in every greedy token."""
    return torch.allclose(one, other, atol=1e-3) and torch.equal(one.argmax(-1), other.argmax(-1))


def loaded(file: Path) -> Any:
    """The model without its tokenizer, whose conversion takes a second."""
    config = gguf_config(file, "model.name=m")
    cpu = torch.device("cpu")
    return load_weights(file.parent, config, torch.float32, "model.name=m", cpu, gguf_file=file.name).eval()


@pytest.mark.parametrize("kind", ROPES)
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_rope_is_the_models(family: str, kind: str, tmp_path: Path) -> None:
    parameters, keys = ROPES[kind]
    model, tensors = model_of(family, **rope(parameters)), {}
    if "llama3" in kind:
        factors = [parameters[name] for name in LLAMA3]
        tensors = {"rope_freqs.weight": llama3_factors(model.config, *factors)}
    read = loaded(write_gguf(tmp_path / "m.gguf", model, keys, tensors))
    assert same(logits(read), logits(model))
    assert same(logits(model_of(family)), logits(model)) == (kind == "none"), "the scaling must matter here"
    expected = "longrope" if "other" in kind else parameters.get("rope_type", "default")
    assert read.config.rope_parameters["rope_type"] == expected


def test_factors_by_channel_reach_the_engine(tmp_path: Path) -> None:
    """Through the cache of converted files too: the angles are those of the parameters they came from."""
    parameters = ROPES["llama3 of other factors"][0]
    model = model_of("llama", **rope(parameters))
    factors = llama3_factors(model.config, *(parameters[name] for name in LLAMA3))
    file = write_gguf(tmp_path / "m.gguf", model, {}, {"rope_freqs.weight": factors})
    read = load_model(ModelConfig(name=str(file), device="cpu"))
    assert read.hf_config.rope_parameters["rope_type"] == "longrope"
    table, meant = RopeTable.from_config(read.hf_config), RopeTable.from_config(model.config)
    torch.testing.assert_close(table.inv_freq, meant.inv_freq, rtol=1e-6, atol=0)
    assert table.scaling == meant.scaling == 1.0
    assert same(logits(read.model), logits(model))


WINDOWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all layers": ({"attention.sliding_window": 64}, {"layer_types": ["sliding_attention"] * 2}),
    "every second reaches far": (
        {"attention.sliding_window": 64, "attention.sliding_window_pattern": 2},
        {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "by layer": (
        {"attention.sliding_window": 64, "attention.sliding_window_pattern": [False, True]},
        {"layer_types": ["full_attention", "sliding_attention"]},
    ),
}


@pytest.mark.parametrize("kind", WINDOWS)
def test_sliding_windows(kind: str, tmp_path: Path) -> None:
    keys, settings = WINDOWS[kind]
    model = model_of("qwen3", sliding_window=64, use_sliding_window=True, **settings)
    read = loaded(write_gguf(tmp_path / "m.gguf", model, keys))
    assert same(logits(read), logits(model)) and not same(logits(model), logits(model_of("qwen3")))


CARRIED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "biases of attention": ("llama", {"attention_bias": True}, {}),
    "biases of all": ("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "biases of qwen3": ("qwen3", {"attention_bias": True}, {}),
    "tied embeddings": ("llama", {"tie_word_embeddings": True}, {}),
    "narrow heads": ("qwen3", {"head_dim": 8}, {}),
    "no key for their width": ("llama", {}, {"attention.key_length": None, "attention.value_length": None}),
    "no key for the base": ("llama", {}, {"rope.freq_base": None}),
    "another base": ("qwen2", rope({}, 5e5), {}),
    "a window beyond the context": ("llama", {}, {"attention.sliding_window": 4096}),
    "the usual scale": ("llama", {}, {"attention.scale": 0.25}),
    "scales of one": ("llama", {}, {"logit_scale": 1.0, "embedding_scale": 1.0, "residual_scale": 1.0}),
    "caps of none": ("llama", {}, {"attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0}),
    "one width for all layers": ("llama", {}, {"feed_forward_length": [128, 128]}),
    "no experts": ("llama", {}, {"expert_count": 0, "expert_used_count": 0}),
    "weights of experts not normalised": (
        "qwen3_moe",
        {"norm_topk_prob": False},
        {"expert_weights_norm": False},
    ),
    "weights of experts normalised": ("qwen2_moe", {"norm_topk_prob": True}, {"expert_weights_norm": True}),
    "factors of one": ("llama", {}, {}),
}


@pytest.mark.parametrize("what", CARRIED)
def test_what_is_carried_over(what: str, tmp_path: Path) -> None:
    family, settings, keys = CARRIED[what]
    model = model_of(family, **settings)
    tensors = {"rope_freqs.weight": torch.ones(8)} if what == "factors of one" else {}
    read = loaded(write_gguf(tmp_path / "m.gguf", model, keys, tensors))
    assert same(logits(read), logits(model))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "longrope": (
        "llama",
        {"rope.scaling.type": "longrope"},
        "llama.rope.scaling.type=longrope: must be none, linear",
    ),
    "unknown scaling": ("qwen2", {"rope.scaling.type": "su"}, "qwen2.rope.scaling.type=su: must be none"),
    "attention factor": (
        "qwen2",
        YARN_KEYS | {"rope.scaling.attn_factor": 1.2},
        "qwen2.rope.scaling.attn_factor=1.2",
    ),
    "extrapolation": (
        "qwen2",
        YARN_KEYS | {"rope.scaling.yarn_ext_factor": 0.5},
        "rope.scaling.yarn_ext_factor=0.5",
    ),
    "multiplier": (
        "qwen2",
        YARN_KEYS | {"rope.scaling.yarn_log_multiplier": 0.1},
        "qwen2.rope.scaling.yarn_log_multiplier=0.1",
    ),
    "dynamic": ("llama", {"rope.scaling.alpha": 1000.0}, "llama.rope.scaling.alpha=1000"),
    "part of the head": ("qwen3", {"rope.dimension_count": 8}, "qwen3.rope.dimension_count=8: must be 16"),
    "sections": (
        "qwen2",
        {"rope.dimension_sections": [2, 3, 3, 0]},
        "qwen2.rope.dimension_sections=[2, 3, 3, 0]",
    ),
    "other values": ("llama", {"attention.value_length": 8}, "llama.attention.value_length=8: must be 16"),
    "scale": ("llama", {"attention.scale": 0.5}, "llama.attention.scale=0.5: changes the computation"),
    "output scale": ("llama", {"attention.output_scale": 0.5}, "llama.attention.output_scale=0.5"),
    "clamp": ("llama", {"attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv=8"),
    "alibi": ("llama", {"attention.max_alibi_bias": 8.0}, "llama.attention.max_alibi_bias=8"),
    "both ways": ("llama", {"attention.causal": False}, "llama.attention.causal=False"),
    "window": ("llama", {"attention.sliding_window": 64}, "llama.attention.sliding_window=64"),
    "logits": ("llama", {"logit_scale": 0.1}, "llama.logit_scale=0.1"),
    "cap": ("qwen3", {"final_logit_softcapping": 30.0}, "qwen3.final_logit_softcapping=30"),
    "cap of attention": ("qwen3", {"attn_logit_softcapping": 50.0}, "qwen3.attn_logit_softcapping=50"),
    "embeddings": ("llama", {"embedding_scale": 12.0}, "llama.embedding_scale=12"),
    "residual": ("llama", {"residual_scale": 0.22}, "llama.residual_scale=0.22"),
    "parallel": ("llama", {"use_parallel_residual": True}, "llama.use_parallel_residual=True"),
    "experts": ("llama", {"expert_count": 8, "expert_used_count": 2}, "llama.expert_count=8"),
    "scale of experts": ("qwen3_moe", {"expert_weights_scale": 2.5}, "qwen3moe.expert_weights_scale=2.5"),
    "gating": ("qwen3_moe", {"expert_gating_func": 2}, "qwen3moe.expert_gating_func=2"),
    "groups": ("qwen3_moe", {"expert_group_count": 4}, "qwen3moe.expert_group_count=4"),
    "dense layers": ("qwen3_moe", {"leading_dense_block_count": 1}, "qwen3moe.leading_dense_block_count=1"),
    "more layers": ("qwen3", {"nextn_predict_layers": 1}, "qwen3.nextn_predict_layers=1"),
    "heads by layer": (
        "llama",
        {"attention.head_count_kv": [2, 1]},
        "llama.attention.head_count_kv=[2, 1]: differs",
    ),
    "unknown": ("llama", {"attention.sinks": 4}, "llama.attention.sinks=4: changes the computation"),
    "no KV heads": ("llama", {"attention.head_count_kv": None}, "llama.attention.head_count_kv: missing"),
    "no epsilon": ("qwen2", {"attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon: missing"),
    "no experts used": ("qwen3_moe", {"expert_used_count": None}, "qwen3moe.expert_used_count: missing"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_by_its_key(what: str, tmp_path: Path) -> None:
    family, keys, words = REFUSED[what]
    file = write_gguf(tmp_path / "m.gguf", model_of(family), keys)
    with pytest.raises(
        ConfigError, match=f"^model.name={re.escape(str(file))}: .*{re.escape(words)}"
    ) as caught:
        load_config(ModelConfig(name=str(file)))
    assert "\n" not in str(caught.value)


TENSORS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "long and short factors": (
        "llama",
        {},
        {"rope_factors_long.weight": torch.ones(8), "rope_factors_short.weight": torch.ones(8)},
        "2 tensors cannot be carried over, first rope_factors_long.weight",
    ),
    "some biases": ("llama", {}, {"blk.0.attn_q.bias": torch.ones(64)}, "first blk.0.attn_k.bias"),
    "biases of the last layer": (
        "llama",
        {},
        {"blk.1.attn_q.bias": torch.ones(64)},
        "first blk.1.attn_q.bias",
    ),
    "norms of heads": (
        "llama",
        {},
        {"blk.0.attn_q_norm.weight": torch.ones(16)},
        "first blk.0.attn_q_norm.weight",
    ),
    "sinks": ("qwen3", {}, {"blk.0.attn_sinks.weight": torch.ones(4)}, "first blk.0.attn_sinks.weight"),
    "a layer too many": (
        "qwen3",
        {},
        {"blk.2.attn_norm.weight": torch.ones(64)},
        "first blk.2.attn_norm.weight",
    ),
    "no biases": ("qwen2", {}, {"blk.1.attn_v.bias": None}, "1 tensors are missing, first blk.1.attn_v.bias"),
    "no norm": ("qwen3", {}, {"output_norm.weight": None}, "1 tensors are missing, first output_norm.weight"),
    "factors of another width": (
        "llama",
        {},
        {"rope_freqs.weight": torch.full((4,), 2.0)},
        "has 4 factors, must have 8",
    ),
    "factors beside yarn": (
        "llama",
        YARN_KEYS,
        {"rope_freqs.weight": torch.full((8,), 2.0)},
        "llama.rope.scaling.type=yarn: cannot be carried over together with the tensor rope_freqs.weight",
    ),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_are_refused(what: str, tmp_path: Path) -> None:
    family, keys, tensors, words = TENSORS[what]
    file = write_gguf(tmp_path / "m.gguf", model_of(family), keys, tensors)
    with pytest.raises(ConfigError, match=re.escape(words)):
        gguf_config(file, "model.name=m")


@pytest.mark.parametrize("shape", [(60, 64), (64, 32)])
def test_a_tensor_of_another_shape_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", model_of("qwen3"), {}, {"blk.0.attn_q.weight": torch.ones(shape)})
    with pytest.raises(
        ConfigError, match=r"1 weights are of another shape, first model.layers.0.self_attn.q_proj"
    ):
        loaded(file)


def test_files_that_are_no_whole_model(tmp_path: Path) -> None:
    import gguf

    for key, value, words in [
        ("general.architecture", "gemma2", "general.architecture=gemma2: must be one of llama, qwen2"),
        ("general.type", "adapter", "general.type=adapter: must be model"),
    ]:
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", value if key.endswith("architecture") else "llama")
        if key == "general.type":
            writer.add_type(value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ConfigError, match=re.escape(words)):
            gguf_config(tmp_path / "m.gguf", "model.name=m")
