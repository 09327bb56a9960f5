"""Initial weights of small models."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3ForCausalLM

from seer_ray.config.training import ArchitectureConfig, MixerPlanConfig
from seer_ray.training.pretrain.model import make_model
from seer_ray.training.pretrain.tokenizer import make_tokenizer


def made(initial: str, **sizes: int) -> Qwen3ForCausalLM:
    config = ArchitectureConfig(initial=initial, layers=2, hidden_size=128, **sizes)
    return make_model(config, MixerPlanConfig(), make_tokenizer(512), seed=3)


def attention_of(model: Qwen3ForCausalLM, layer: int, tokens: torch.Tensor) -> torch.Tensor:
    """``[heads, query, key]``"""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(tokens[None], output_attentions=True).attentions[layer][0]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (3, 3), (4, 1)])
def test_heads_of_the_first_layer_look_back_by_one_token_and_by_two_and_so_on(heads, kv_heads):
    model = made("lookup", heads=heads, kv_heads=kv_heads)
    tokens = torch.randint(0, 500, (300,), generator=torch.Generator().manual_seed(0))
    weights = attention_of(model, 0, tokens)
    for head in range(heads):
        behind = weights[head].diagonal(-(head + 1))  # what it gives the token head + 1 before
        most = weights[head].argmax(1)[head + 1 :]
        right = (most == torch.arange(len(most))).float().mean()
        assert right > 0.9 and behind.mean() > 0.1, head
    flat = attention_of(made("random", heads=heads, kv_heads=kv_heads), 0, tokens)
    assert all(flat[head].diagonal(-(head + 1)).mean() < 0.05 for head in range(heads))


def test_queries_of_later_layers_look_for_tokens_like_their_own():
    for initial, least, most in (("lookup", 0.8, 1.0), ("random", -0.1, 0.1)):
        attention = made(initial).model.layers[1].self_attn
        keys = attention.k_proj.weight.view(2, 1, -1).expand(2, 2, -1)
        queries = attention.q_proj.weight.view(2, 2, -1)
        assert (least < torch.cosine_similarity(queries, keys, dim=-1)).all()
        assert (torch.cosine_similarity(queries, keys, dim=-1) < most).all()


def test_initial_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    first = made("lookup").state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(first[name], weight) for name, weight in made("lookup").state_dict().items())
