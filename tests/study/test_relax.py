"""Each relaxation against its definition, written out in float64 with the modules of transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import make_tiny
from torch import Tensor

from seer_ray.config.study import RELAXATIONS
from seer_ray.corpora.pack import Pack
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates
from seer_ray.study.forward import STREAMS, DensePack, How, Model
from seer_ray.study.indicators import NAMES, indicators
from seer_ray.study.relax import MAPS, Asked

WINDOW, FIRST, LENGTHS = 3, 2, (13, 9)
LAYERS = 3
HOW = How(WINDOW, FIRST)


def documents(seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (length,), generator=draw, dtype=torch.int32) for length in LENGTHS]


def weights(kind: str, q: Tensor, k: Tensor, scale: float) -> Tensor:
    """The map ``[heads, tokens, tokens]`` of rotated queries and keys, entry by entry."""
    heads, tokens, _ = q.shape
    found = torch.zeros(heads, tokens, tokens, dtype=torch.float64)
    for h in range(heads):
        for i in range(tokens):
            row = torch.zeros(tokens, dtype=torch.float64)
            for j in range(i + 1):
                x = float(q[h, i] @ k[h, j]) * scale
                if kind == "uniform":
                    row[j] = 1.0
                elif kind == "self":
                    row[j] = float(i == j)
                elif kind == "taylor":
                    row[j] = 1 + x + x * x / 2
                elif kind == "window":
                    row[j] = math.exp(x) if i - j < WINDOW or j < FIRST else 0.0
                else:
                    row[j] = math.exp(x)
            found[h, i] = row / row.sum()
    return found


def heads_of(model: Any, layer: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, of one document, ``[heads, tokens, dim]``."""
    attention = layer.self_attn
    x = layer.input_layernorm(hidden)
    dim, tokens = attention.head_dim, len(hidden)
    q = attention.q_proj(x).view(tokens, -1, dim)
    k = attention.k_proj(x).view(tokens, -1, dim)
    v = attention.v_proj(x).view(tokens, -1, dim)
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    cos, sin = model.model.rotary_emb(hidden.unsqueeze(0), torch.arange(tokens).unsqueeze(0))

    def turned(part: Tensor) -> Tensor:
        first, second = part.chunk(2, -1)
        turn = torch.cat([-second, first], -1)
        return part * cos[0].unsqueeze(1) + turn * sin[0].unsqueeze(1)

    group = q.shape[1] // k.shape[1]
    q, k = turned(q), turned(k).repeat_interleave(group, 1)
    return q.transpose(0, 1), k.transpose(0, 1), v.repeat_interleave(group, 1).transpose(0, 1)


def reference(
    model: Any, tokens: Tensor, relaxed: dict[int, str], streams: dict[str, list[Tensor]]
) -> Tensor:
    """Normalised hidden states of one document. ``streams``: the input of each layer, by relaxation."""
    hidden = embedded = model.model.embed_tokens(tokens.long())
    for number, layer in enumerate(model.model.layers):
        kind = relaxed.get(number, "dense")
        if kind == "skip":
            continue
        q, k, v = heads_of(model, layer, hidden)
        if kind in STREAMS:
            other = embedded if kind == "static" else streams[kind][number][: len(tokens)]
            q, k, _ = heads_of(model, layer, other)
        mixed = weights(kind, q, k, layer.self_attn.scaling) @ v
        if kind == "silent":
            mixed = torch.zeros_like(mixed)
        hidden = hidden + layer.self_attn.o_proj(mixed.transpose(0, 1).flatten(1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return model.model.norm(hidden)


def inputs(model: Any, embedded: Tensor) -> list[Tensor]:
    """What enters each layer when ``embedded`` passes through the dense model."""
    hidden, found = embedded, []
    for layer in model.model.layers:
        found.append(hidden)
        q, k, v = heads_of(model, layer, hidden)
        mixed = weights("dense", q, k, layer.self_attn.scaling) @ v
        hidden = hidden + layer.self_attn.o_proj(mixed.transpose(0, 1).flatten(1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return found


def probed(family: str) -> tuple[Any, Model, DensePack, dict[str, Any]]:
    plain = make_tiny(family, num_hidden_layers=LAYERS).double()
    model = Model(make_tiny(family, num_hidden_layers=LAYERS).double(), HOW, max(LENGTHS))
    draw = torch.Generator().manual_seed(3)
    noise = torch.randn(max(LENGTHS), 64, generator=draw, dtype=torch.float64)
    text = model.embedded(torch.arange(40, 40 + max(LENGTHS)))
    for kind, stream in (("random", noise), ("fixed", text)):
        model.set_stream(kind, stream)
    pack = Pack.of(documents())
    dense = DensePack(model, pack, torch.arange(sum(LENGTHS)))
    dense.run(2**30)
    return plain, model, dense, {"random": inputs(plain, noise), "fixed": inputs(plain, text)}


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("kind", sorted(set(RELAXATIONS) - {"gated"}))
@torch.inference_mode()
def test_a_relaxed_layer_is_what_it_is_said_to_be(kind: str, family: str) -> None:
    """Alone, and two together, of which the second sees what the first has made."""
    plain, _, dense, streams = probed(family)
    for layers in ((1,), (0, 2)):
        found = dense.relaxed(layers, kind)
        wanted = [reference(plain, one, dict.fromkeys(layers, kind), streams) for one in documents()]
        torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_nothing_relaxed_is_the_model() -> None:
    plain, model, dense, _ = probed("qwen3")
    wanted = [plain.model(one.long().unsqueeze(0)).last_hidden_state[0] for one in documents()]
    torch.testing.assert_close(dense.final, torch.cat(wanted), rtol=1e-6, atol=1e-6)
    wide = DensePack(
        Model(model.model, How(window=max(LENGTHS)), max(LENGTHS)), dense.pack, torch.arange(sum(LENGTHS))
    )
    wide.run(0)
    assert list(wide.states) == [0]
    same = wide.relaxed(range(LAYERS), "window")
    torch.testing.assert_close(same, dense.final, rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_gated_layers_read_what_decoding_reads() -> None:
    """All of few blocks is the dense layer; fewer is what the selection leaves, which decoding shares."""
    model = make_tiny("qwen3", num_hidden_layers=LAYERS)
    gates: tuple[AttnGate | None, ...] = init_gates(
        model.config, GateConfig(block_size=4, gate_dim=8), seed=1
    )
    tokens = torch.cat(documents())
    pack = Pack.of([tokens])
    rows = torch.arange(len(tokens))
    for budget, same in ((len(tokens), True), (2, False)):
        dense = DensePack(Model(model, How(gates=gates, budget=budget), len(tokens)), pack, rows)
        dense.run(2**30)
        found = dense.relaxed((0, 1, 2), "gated")
        assert torch.allclose(found, dense.final, atol=1e-4) is same
        # Whatever the budget, tokens that have no more blocks than it are as they were.
        torch.testing.assert_close(found[: 4 * 2], dense.final[: 4 * 2], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_maps_of_fixed_and_random_do_not_depend_on_the_text() -> None:
    _, model, dense, _ = probed("llama")
    other = DensePack(model, Pack.of(documents(seed=9)), torch.arange(sum(LENGTHS)))
    other.run(2**30)
    for kind in ("fixed", "random", "window"):
        seen: list[list[Tensor]] = [[], []]
        for place, one in enumerate((dense, other)):

            def look(layer: int, number: int, what: str, asked: Asked, place: int = place) -> None:
                if what != "dense":
                    rows = torch.arange(len(asked.k))
                    seen[place].append(MAPS[what](asked, rows))  # noqa: B023

            one.relaxed((0, 1), kind, look)
        equal = all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
        assert equal is (kind != "window") and len(seen[0]) == 2 * len(LENGTHS)


def test_indicators() -> None:
    """By hand: a head that reads itself, and one that reads all alike."""
    rows = torch.tensor([1, 3])
    one = torch.nn.functional.one_hot(rows, 4).float()
    past = (torch.arange(4) <= rows.unsqueeze(1)).float() / (rows + 1).unsqueeze(1)
    found = indicators(torch.stack([one, past]), rows)
    assert list(found) == list(NAMES)
    assert found["entropy"] == pytest.approx((0 + math.log(2) + math.log(4)) / 4)
    assert found["concentration"] == pytest.approx((2 + math.sqrt(1 / 2) + math.sqrt(1 / 4)) / 4)
    # Halves of the distance between the two heads' rows.
    distance = [math.sqrt(0.5), math.sqrt(0.75**2 + 3 * 0.25**2)]
    assert found["diversity"] == pytest.approx(sum(distance) / 4)
    assert found["sink"] == pytest.approx((0 + 0 + 1 / 2 + 1 / 4) / 4)
    assert found["local_0"] == pytest.approx((2 + 1 / 2 + 1 / 4) / 4)
    assert found["local_3"] == pytest.approx((0 + 1 / 4) / 2)
