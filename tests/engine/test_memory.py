"""Memory of layers of every kind: what is allocated, what a long chain holds, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import family_model, outcome, request, run, tiny_model, tokens
from families import FAMILY_NAMES, make_family
from transformers import AutoModelForCausalLM

from seer_ray.bench.steps import stretch
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine, groups
from seer_ray.engine.pages import Keeps
from seer_ray.engine.states import StateSlots, slot_count
from seer_ray.kernels.quantise import tensors
from seer_ray.models.families import FAMILIES
from seer_ray.models.hosted import kept_states
from seer_ray.models.patch import attention_shape

BLOCK, LAYERS = 16, 8


def engine_of(model: Any, **settings: Any) -> Engine:
    return Engine(
        model, EngineConfig(**({"block_size": BLOCK, "max_batch": 4, "prefill_chunk": 32} | settings))
    )


def kv_bytes(engine: Engine) -> int:
    """Of the tensors of K and V, the pages of nobody not counted."""
    cache, total = engine.runner.cache, 0
    for kv, group in zip(cache.kv, cache.group_of, strict=True):
        if kv is not None and group is not None:
            pages = engine.runner.capacity.pages[group]
            total += sum(
                part[1:].nbytes for part in tensors(kv) if part is not None and len(part) == pages + 1
            )
    return total


def state_bytes(engine: Engine) -> int:
    states = engine.runner.cache.states
    return 0 if states is None else sum(part.nbytes for part in states.tensors)


def hybrid(ratio: int) -> Any:
    """So many linear layers for each full one."""
    period = ["linear_attention"] * ratio + ["full_attention"]
    return family_model(
        "qwen3_5_text", num_hidden_layers=LAYERS, layer_types=tuple(period * (LAYERS // len(period)))
    )


@pytest.mark.parametrize("ratio", [1, 3, 7])
def test_linear_layers_leave_one_part_of_the_cache_and_a_constant(ratio: int) -> None:
    full = engine_of(hybrid(0))
    mixed, longer = engine_of(hybrid(ratio)), engine_of(hybrid(ratio), max_length=512)
    assert kv_bytes(mixed) * (ratio + 1) == kv_bytes(full) == full.runner.capacity.bytes
    assert kv_bytes(longer) * 2 == kv_bytes(mixed)

    # Per linear layer the recurrence, heads x width x width in float32, and the convolution's last inputs.
    layers, config = LAYERS * ratio // (ratio + 1), mixed.model.hf_config
    heads, width = config.linear_num_value_heads, config.linear_value_head_dim
    channels = heads * width + 2 * config.linear_num_key_heads * config.linear_key_head_dim
    one = 4 * (heads * width * width + channels * config.linear_conv_kernel_dim)
    assert state_bytes(full) == 0
    assert state_bytes(mixed) == state_bytes(longer) == slot_count(4) * layers * one


def test_a_window_keeps_its_own_pages_of_a_million_tokens() -> None:
    reach, length = 100, 2**20
    model = tiny_model("mistral", sliding_window=reach, max_position_embeddings=length + 256)
    engine = engine_of(model, max_batch=2)
    most = Keeps(reach).pages(length, BLOCK)
    assert most == 8
    assert engine.runner.capacity.pages == (2 * most + 32 // BLOCK + 1,)
    assert engine.runner.capacity.cached is None

    for seed, name in enumerate("ab"):
        engine.submit(request(name, tokens(5, seed), length + 40))
    engine.step()
    stretch(engine, length)
    done = {}
    (pool,) = engine.scheduler.pools
    for _ in range(100):
        done |= {d.request_id: d.completion for d in engine.step() if d.completion is not None}
        assert pool.used <= 2 * most
    assert {len(completion.tokens) for completion in done.values()} == {length + 40} and len(done) == 2
    assert pool.used == 0


WINDOWED = SelectorConfig(name="window", budget=4 * BLOCK, layers={"1": "dense"})


@pytest.mark.parametrize("exact", [False, True], ids=["fast", "exact"])
@pytest.mark.parametrize("sparse_prefill", [False, True])
def test_what_a_window_of_the_plan_leaves_is_given_back(
    sparse_prefill: bool, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chains are those of an engine that keeps all: beside others, as samples of one prompt, preempted."""
    chosen = replace(WINDOWED, sparse_prefill=sparse_prefill)
    settings = EngineConfig(block_size=BLOCK, max_batch=3, prefill_chunk=32, exact=exact, max_length=256)
    chains = [
        request(f"{n}/{sample}", tokens(50 + 60 * n, seed=n), 60, temperature=1.0)
        for n in range(2)
        for sample in range(3)
    ]
    engine = Engine(tiny_model("qwen3"), settings, chosen)
    far, near = engine.scheduler.pools
    assert near.keeps == Keeps(2 * BLOCK + 1, 1, whole_prompts=not sparse_prefill)
    assert near.capacity == 3 * 4 + (32 // BLOCK + 1 if sparse_prefill else 256 // BLOCK)
    for chain in chains:
        engine.submit(chain)
    done: dict[str, Any] = {}
    while engine.busy:
        done |= {d.request_id: d.completion for d in engine.step() if d.completion is not None}
        for sequence in engine.scheduler.running:
            if sequence.generated > 1:
                assert len(sequence.pages[1]) - sequence.pages[1].count(0) <= 4
    engine.scheduler.check()
    assert far.used == near.used == 0

    tight = Engine(tiny_model("qwen3"), settings, chosen)
    far = tight.scheduler.pools[0]
    far.capacity, far._free, far._owners = 22, list(range(22, 0, -1)), [0] * 23
    preempted = run(tight, chains)
    assert tight.stats()["preemptions"] > 0

    monkeypatch.setattr(groups, "Keeps", lambda *_, **__: Keeps())
    whole = Engine(tiny_model("qwen3"), settings, chosen)
    assert len(whole.scheduler.pools) == 1
    for id, completion in run(whole, chains).items():
        assert outcome(done[id]) == outcome(completion)
        if exact:  # else generated tokens are computed again as a prompt
            assert preempted[id].tokens == completion.tokens


def admitted(model: Any, memory: int, **settings: Any) -> Engine:
    """That an engine is made with this memory, and refused with a byte less."""
    with pytest.raises(ConfigError, match=rf"^engine\.kv_memory={memory - 1}: too small for \d+ blocks of"):
        engine_of(model, kv_memory=str(memory - 1), **settings)
    return engine_of(model, kv_memory=str(memory), **settings)


def test_the_least_memory_of_layers_with_states() -> None:
    model = hybrid(3)
    (page,) = engine_of(model).runner.capacity.page_bytes
    states = slot_count(4) * StateSlots.bytes_of(attention_shape(model.model).states)
    engine = admitted(model, states + 3 * page)  # a page is nobody's
    assert engine.runner.capacity.pages == (2,)
    assert kv_bytes(engine) + state_bytes(engine) + page == states + 3 * page

    fits, does_not = request("fits", tokens(2 * BLOCK - 4), 4), request("does not", tokens(2 * BLOCK + 1), 4)
    for item in (fits, does_not):
        engine.submit(item)
    done = {completion.request.id: completion for completion in engine.run()}
    assert len(done["fits"].tokens) == 4
    assert "the cache holds 32: raise engine.kv_memory" in str(done["does not"].error)

    with pytest.raises(ConfigError, match=r"the states of engine\.max_batch=4 rows alone take .* MiB more"):
        engine_of(model, kv_memory=str(states - 1))


def test_the_least_memory_of_windows_beside_full_layers() -> None:
    model = family_model("exaone4")
    far, near = engine_of(model).runner.capacity.page_bytes
    reach = model.hf_config.sliding_window
    least = Keeps(reach).pages(model.max_context, BLOCK) + 32 // BLOCK + 1
    memory = max(2 * (least + 1) * near, (least + 1) * near + 3 * far)
    engine = admitted(model, memory)
    assert engine.runner.capacity.pages[1] == least and engine.runner.capacity.pages[0] >= 2
    engine.submit(request("a", tokens(20), 8))
    assert [len(completion.tokens) for completion in engine.run()] == [8]


@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if FAMILIES[name].state])
def test_recurrences_are_kept_in_float32(family: str) -> None:
    """They add up over thousands of tokens, whatever the weights are in."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_family(family).config, dtype=torch.bfloat16)
    kept = [one for one in kept_states(model) if one is not None]
    assert kept
    for conv, recurrent in kept:
        assert conv is not None and conv.dtype == torch.bfloat16
        assert (recurrent is None) == (family == "lfm2")
        assert recurrent is None or recurrent.dtype == torch.float32
