"""Mixed models: sizes, what each relaxation leaves out, what layers keep, and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mixed import RECURRENT, TRAINED, make_mixed
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM

from seer_ray.config.options import ModelConfig
from seer_ray.models.catalog import describe
from seer_ray.models.hosted import kept_states
from seer_ray.models.load import load_model
from seer_ray.models.mixed.config import MixedConfig
from seer_ray.models.mixed.model import MixedLayer
from seer_ray.models.packed import PackedStep
from seer_ray.models.step import Attention

SIZES = [
    {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "head_dim": 32, "state_dim": 8},
    {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 32, "state_dim": 16},
    {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "head_dim": 64},
]


@pytest.mark.parametrize("conv", [0, 4])
@pytest.mark.parametrize("sizes", SIZES)
def test_layers_of_all_kinds_have_as_many_weights(sizes: dict[str, int], conv: int) -> None:
    counts = {}
    for name in TRAINED:
        config = MixedConfig(
            **sizes,
            num_key_value_heads=sizes["num_attention_heads"],
            num_hidden_layers=1,
            mixers=[name],
            conv=conv,
        )
        with torch.device("meta"):
            counts[name] = sum(weight.numel() for weight in MixedLayer(config, 0).parameters())
    for name, count in counts.items():
        assert abs(count / counts["attention"] - 1) < 0.01, name


class Seen(PackedStep):
    """Remembers what layers asked."""

    def attend(self, layer: int, asked: Attention) -> torch.Tensor:
        self.asked: dict[int, Attention] = {**getattr(self, "asked", {}), layer: asked}
        return super().attend(layer, asked)


def asked_of(model: Any, tokens: torch.Tensor) -> dict[int, Attention]:
    plain = model.model.packed((len(tokens),))
    seen = Seen(plain.documents, model.model._ropes(tokens)[model.config.head_dim], plain.mixers)
    model.model.hidden(tokens, seen)
    return seen.asked


TEXTS = torch.randint(0, 256, (2, 30), generator=torch.Generator().manual_seed(4))


def test_without_token_mixing_the_context_does_not_matter() -> None:
    model = make_mixed("mlp", "mlp", "mlp").model
    whole = model(TEXTS).logits
    for size in (1, 5, 15):
        pieces = model(TEXTS.view(-1, size)).logits.view_as(whole)
        torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["rndemb", "fixedseq"])
def test_maps_of_fixed_streams_are_the_same_for_every_input(kind: str) -> None:
    model = make_mixed(kind, "attention", "gla", kind, conv=3).model
    one, other = (asked_of(model, text) for text in TEXTS)
    for layer in (0, 3):
        assert torch.equal(one[layer].q, other[layer].q) and torch.equal(one[layer].k, other[layer].k)
        assert not torch.equal(one[layer].v, other[layer].v)
    assert not torch.equal(one[1].k, other[1].k)
    # A stream is a sequence as any other: with the stream's own text for input a map is that of the input.
    if kind == "fixedseq":
        alone = make_mixed("attention", "attention", "gla", "attention", conv=3).model
        weights = model.state_dict()
        alone.load_state_dict({name: w for name, w in weights.items() if "fixedseq" not in name})
        same = asked_of(alone, model.model.fixedseq[:30])
        torch.testing.assert_close(one[3].q, same[3].q, atol=1e-5, rtol=1e-4)


def test_static_maps_are_made_of_the_embeddings_alone() -> None:
    model = make_mixed("gla", "static", "static").model
    found = asked_of(model, TEXTS[0])
    embedded = model.model.embed_tokens(TEXTS[0])
    for layer in (1, 2):
        part = model.model.layers[layer]
        x = part.input_layernorm(embedded)
        q = part.mixer.q_norm(part.mixer.q_proj(x).unflatten(-1, (-1, 16)))
        k = part.mixer.k_norm(part.mixer.k_proj(x).unflatten(-1, (-1, 16)))
        torch.testing.assert_close(found[layer].q, q)
        torch.testing.assert_close(found[layer].k, k)


def test_states_are_as_large_as_their_formulas_say() -> None:
    model = make_mixed(*TRAINED, state_dim=8).model
    heads, dim = 4, 16
    values = {
        name: model.model.layers[TRAINED.index(name)].mixer.value_dim for name in RECURRENT if name != "hgrn"
    }
    sizes = {name: heads * 8 * value for name, value in values.items()} | {
        "hgrn": model.model.layers[TRAINED.index("hgrn")].mixer.inner,
        "nonapproximate": heads * dim + 2 * heads,
        "approximate": heads * (1 + dim + dim * (dim + 1) // 2) * (dim + 1),
    }
    for name, states in zip(TRAINED, kept_states(model), strict=True):
        assert (0 if states is None else states[1].numel()) == sizes.get(name, 0), name
    for name, states in zip(TRAINED, kept_states(make_mixed(*TRAINED, conv=3).model), strict=True):
        assert states[0].shape[2] == 3, name


@pytest.mark.parametrize("conv", [0, 3])
def test_a_folder_is_an_ordinary_one(conv: int, tmp_path: Path) -> None:
    tiny = make_mixed(*TRAINED, conv=conv)
    tiny.model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    logits = tiny.model(TEXTS).logits
    loaded = load_model(ModelConfig(name=str(tmp_path))).model
    for same in (loaded, AutoModelForCausalLM.from_pretrained(tmp_path)):
        torch.testing.assert_close(same(TEXTS).logits, logits, atol=1e-3, rtol=1e-3)
    said = describe(ModelConfig(name=str(tmp_path)))
    assert said.layers == list(TRAINED) and said.lacks == ["tensor parallel"]
    kept = [part for one in kept_states(tiny.model) if one is not None for part in one if part is not None]
    assert said.state_bytes == 4 * sum(part.numel() for part in kept)
    assert said.kv_bytes_per_token == 4 * 4 * 2 * 2 * 16  # layers, bytes, K and V, heads, head_dim


@pytest.mark.parametrize("conv", [0, 3])
def test_documents_of_any_lengths_are_as_each_alone(conv: int) -> None:
    model, lengths = make_mixed(*TRAINED, conv=conv).model, (7, 1, 13, 2, 20)
    tokens = torch.randint(0, 256, (sum(lengths),), generator=torch.Generator().manual_seed(6))
    together = model.model.hidden(tokens, model.model.packed(lengths))
    alone = [model.model.hidden(part, model.model.packed((len(part),))) for part in tokens.split(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-3, rtol=1e-3)


def test_padding_is_refused() -> None:
    model = make_mixed("gla", "attention").model
    with pytest.raises(ValueError, match=r"^attention_mask: this model takes no padding"):
        model(TEXTS, attention_mask=torch.zeros_like(TEXTS))


def test_every_layer_is_trained() -> None:
    """A gradient reaches every weight, through the stream of the fixed maps too."""
    model = make_mixed(*TRAINED, conv=3, hidden_size=32).model
    made: Any = type(model)(model.config)
    torch.nn.functional.cross_entropy(
        made(TEXTS).logits[:, :-1].flatten(0, 1), TEXTS[:, 1:].flatten()
    ).backward()
    for name, weight in made.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name
