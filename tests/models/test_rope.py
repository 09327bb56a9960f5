"""Rotary tables against the models' own rotary modules."""

import pytest
import torch
from tiny import FAMILIES, make_tiny, tiny_config
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from seer_ray.config.errors import ConfigError
from seer_ray.kernels.rotary import unrotate
from seer_ray.models.rope import RopeTable

POSITIONS = torch.tensor([0, 1, 2, 63, 64, 100, 511, 999])
SCALED = {
    "linear": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 256},
}
BY_CHANNEL = {
    "short_factor": [1.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 8.0],
    "long_factor": [1.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 8.0],
    "factor": 1.0,
    "attention_factor": 1.0,
    "original_max_position_embeddings": 1024,
}
"""LongRoPE that is the same at every length; of heads of 16."""


def rotated_by_model(rotary: torch.nn.Module, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """``x [tokens, heads, dim]`` through a model's rotary module and its apply function."""
    cos, sin = rotary(x, positions[None])
    return apply_rotary_pos_emb(x[None], x[None], cos, sin, unsqueeze_dim=2)[0][0]


def scaled_config(kind: str) -> LlamaConfig:
    scaling = BY_CHANNEL if kind == "longrope" else SCALED[kind]
    return tiny_config("llama", rope_parameters={"rope_type": kind, "rope_theta": 5e5, **scaling})


@pytest.mark.parametrize("positions", [0, 1024])
@pytest.mark.parametrize("family", FAMILIES)
def test_default_rope_has_the_bits_of_the_model(family: str, positions: int) -> None:
    model = make_tiny(family)
    table = RopeTable.from_config(model.config, positions)
    x = torch.randn(len(POSITIONS), 3, 16, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        expected = rotated_by_model(model.model.rotary_emb, x.to(dtype), POSITIONS)
        assert torch.equal(table.rotate(x.to(dtype), POSITIONS), expected)


@pytest.mark.parametrize("kind", [*SCALED, "longrope"])
def test_scaled_rope_is_the_models(kind: str) -> None:
    config = scaled_config(kind)
    x = torch.randn(len(POSITIONS), 2, 16, generator=torch.Generator().manual_seed(1))
    table = RopeTable.from_config(config, 1024)
    assert torch.equal(
        table.rotate(x, POSITIONS), rotated_by_model(LlamaRotaryEmbedding(config), x, POSITIONS)
    )
    assert (table.scaling != 1.0) == (kind == "yarn")
    assert not torch.equal(table.inv_freq, RopeTable.from_theta(5e5, 16).inv_freq)


@pytest.mark.parametrize("kind", ["default", *SCALED])
def test_another_dim_is_what_the_model_would_have_with_that_head_dim(kind: str) -> None:
    config = tiny_config("llama") if kind == "default" else scaled_config(kind)
    wide = tiny_config("llama", head_dim=32, rope_parameters=config.rope_parameters)
    x = torch.randn(len(POSITIONS), 2, 32, generator=torch.Generator().manual_seed(2))
    table = RopeTable.from_config(config, dim=32)
    assert torch.equal(table.rotate(x, POSITIONS), rotated_by_model(LlamaRotaryEmbedding(wide), x, POSITIONS))
    assert config.head_dim == 16  # the caller's config is left alone


@pytest.mark.parametrize("kind", ["default", *SCALED])
def test_unrotate_inverts(kind: str) -> None:
    config = tiny_config("llama") if kind == "default" else scaled_config(kind)
    table = RopeTable.from_config(config, 1024)
    x = torch.randn(len(POSITIONS), 2, 16, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        unrotate(table.rotate(x, POSITIONS), *table.at(POSITIONS)), x, atol=1e-5, rtol=0
    )
    assert unrotate(x.bfloat16(), *table.at(POSITIONS)).dtype == torch.float32


def test_table_and_computed_angles_agree() -> None:
    for dtype in (torch.float32, torch.float64):
        table = RopeTable.from_theta(1e5, 64, 1000, dtype)
        cos, sin = RopeTable.from_theta(1e5, 64, dtype=dtype).at(POSITIONS)
        assert torch.equal(table.at(POSITIONS)[0], cos) and torch.equal(table.at(POSITIONS)[1], sin)


def test_double_angles_are_right_far_away() -> None:
    position = torch.tensor([1_000_003])
    exact = torch.cos(position.double() / 1e6 ** (torch.arange(0, 64, 2).double() / 64)).float()
    cos, _ = RopeTable.from_theta(1e6, 64, dtype=torch.float64).at(position)
    assert torch.equal(cos[0, :32], exact)


def test_casting_a_module_leaves_the_tables_in_float32() -> None:
    holder = torch.nn.ModuleList([RopeTable.from_theta(1e4, 16, 100)]).to(torch.bfloat16)
    assert torch.equal(holder[0].cos, RopeTable.from_theta(1e4, 16, 100).cos)
    assert not holder.state_dict()
    assert holder.to("meta")[0].cos.device.type == "meta"


def test_a_position_beyond_the_table_is_an_error() -> None:
    with pytest.raises(IndexError):
        RopeTable.from_theta(1e4, 16, 100).at(torch.tensor([100]))


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "rope_type=dynamic"),
        (
            {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 8,
                "long_factor": [2.0] * 8,
                "original_max_position_embeddings": 512,
            },
            "rope_type=longrope",
        ),
        ({"rope_theta": 1e4, "partial_rotary_factor": 0.5}, "part of the head"),
        ({"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e3}}, "do not share"),
    ],
)
def test_what_tables_cannot_hold_is_refused(parameters: dict, words: str) -> None:
    config = tiny_config("llama")
    config.rope_parameters = parameters
    with pytest.raises(ConfigError, match=words):
        RopeTable.from_config(config)


def test_factors_by_channel_are_for_heads_of_one_width() -> None:
    with pytest.raises(ConfigError, match="rope_type=longrope has factors for 16 channels, not for 32"):
        RopeTable.from_config(scaled_config("longrope"), dim=32)
