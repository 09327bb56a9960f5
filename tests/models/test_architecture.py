"""Which models are supported: those of the list are what transformers computes, others are refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import VOCABULARY, make_tiny, tiny_config
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from seer_ray.config.errors import ConfigError
from seer_ray.models.architecture import check_architecture, check_config, max_context
from seer_ray.models.families import OURS
from seer_ray.models.patch import forward_tokens, patch_attention
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention


class DensePass:
    """One prompt, attended to causally, without a cache."""

    def __init__(self, config: Any, tokens: int) -> None:
        self.rope, self.positions = RopeTable.from_config(config), torch.arange(tokens)

    def attend(self, layer: int, asked: Attention) -> Tensor:
        q, k = (self.rope.rotate(x, self.positions) for x in (asked.q, asked.k))
        heads_first = (x.transpose(0, 1)[None] for x in (q, k, asked.v))
        out = F.scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True, scale=asked.scale)
        return out[0].transpose(0, 1)


def random_model(model_type: str) -> Any:
    config = tiny_config("llama").to_dict()
    config |= {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}
    config |= {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    known = AutoConfig.for_model(model_type).to_dict()
    kept = {name: value for name, value in config.items() if name in known and name != "model_type"}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, **kept | {"head_dim": 16}), dtype=torch.float32
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.7, 1.4)
            else:
                weight.normal_(0.0, 0.2)
    return model.eval()


@pytest.mark.parametrize("model_type", OURS)
@torch.no_grad()
def test_supported_types_are_what_transformers_computes(model_type: str) -> None:
    model = random_model(model_type)
    tokens = torch.randint(0, VOCABULARY, (40,), generator=torch.Generator().manual_seed(1))
    expected = model(tokens[None]).logits[0]
    check_architecture(model, "model.name=x")
    patch_attention(model)
    logits = model.lm_head(forward_tokens(model, tokens, DensePass(model.config, 40)))
    torch.testing.assert_close(logits, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("model_type", ["gemma2", "cohere", "gpt2", "jamba", "deepseek_v3"])
def test_other_types_are_refused(model_type: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^model.name=x: model type {model_type} is not .* llama, .*mistral"
    ):
        check_config(AutoConfig.for_model(model_type), "model.name=x")


def test_a_rope_that_depends_on_the_length_is_refused() -> None:
    parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ConfigError, match=r"^model.name=x: .*rope_type=dynamic"):
        check_config(tiny_config("llama", rope_parameters=parameters), "model.name=x")


def test_layers_of_other_shapes_are_refused() -> None:
    model = make_tiny("qwen3")
    model.model.layers[1].self_attn.q_norm = torch.nn.RMSNorm(64)
    with pytest.raises(ConfigError, match=r"layer 1: self_attn\.q_norm is not over a head of 16"):
        check_architecture(model, "model.name=x")
    del model.model.layers[0].self_attn.k_proj
    with pytest.raises(ConfigError, match=r"layer 0 has no self_attn\.k_proj with 32 outputs"):
        check_architecture(model, "model.name=x")


YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize(
    "config, tokens",
    [
        (tiny_config("llama"), 1024),
        (tiny_config("llama", rope_parameters=YARN), 4096),
        (tiny_config("mistral", sliding_window=256), 1024),
        (tiny_config("mistral", sliding_window=None), 1024),
        (Qwen2Config(sliding_window=4096), 32768),  # named, but not used
        (Qwen2Config(use_sliding_window=True, sliding_window=4096, max_window_layers=2), 32768),
        (Qwen2Config(use_sliding_window=True, sliding_window=4096, max_window_layers=99), 32768),
    ],
    ids=["plain", "yarn", "window", "no window", "window unused", "window in some layers", "window in none"],
)
def test_max_context(config: Any, tokens: int) -> None:
    assert max_context(config) == tokens


@torch.no_grad()
def test_up_to_its_window_a_sliding_layer_is_full_attention() -> None:
    """One token more and it is not: the limit is exact."""
    windowed, full = make_tiny("mistral", sliding_window=16), make_tiny("mistral")
    tokens = torch.randint(0, VOCABULARY, (1, 17), generator=torch.Generator().manual_seed(2))
    difference = (windowed(tokens).logits - full(tokens).logits).abs().amax(-1)[0]
    assert difference[:16].max() < 1e-4 < difference[16]
