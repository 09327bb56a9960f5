"""Mixed models in the engine: decoded in chunks, in slots and in company, as by one forward of the whole."""

from __future__ import annotations

import pytest
import torch
from engines import TinyModel, request, run, tokens
from mixed import TRAINED, make_mixed

from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine

PROMPTS = [tokens(count, seed=count) for count in (1, 33, 100)]
NEW = 20


def engine_of(model: TinyModel, selector: str = "dense", budget: int = 1024, **settings: object) -> Engine:
    options = {"block_size": 16, "max_batch": 2, "prefill_chunk": 32} | settings
    return Engine(model, EngineConfig(**options), SelectorConfig(name=selector, budget=budget))


def generated(model: TinyModel) -> list[list[int]]:
    """Greedily, the whole sequence anew for each token."""
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        for _ in range(NEW):
            ids = torch.cat((ids, model.model(ids).logits[:, -1:].argmax(-1)), dim=1)
        found.append(ids[0, len(prompt) :].tolist())
    return found


@pytest.mark.parametrize("conv", [0, 3])
@pytest.mark.parametrize("mixer", TRAINED)
def test_decoding_is_the_forward_of_the_whole(mixer: str, conv: int) -> None:
    """Three requests in two rows: chunked prompts, mixed lengths, and a slot that another had before."""
    model = make_mixed(mixer, "attention", mixer, conv=conv)
    done = run(engine_of(model), [request(str(n), prompt, NEW) for n, prompt in enumerate(PROMPTS)])
    assert [done[str(n)].tokens for n in range(len(PROMPTS))] == generated(model)


def test_selectors_pick_blocks_of_maps_of_any_origin() -> None:
    model = make_mixed("rndemb", "fixedseq", "static", "gla", "attention")
    asked = [request("0", PROMPTS[2], NEW)]
    dense = run(engine_of(model), asked)["0"]
    for selector in ("quest", "seer"):
        assert run(engine_of(model, selector), asked)["0"].tokens == dense.tokens
    sparse = run(engine_of(model, "quest", budget=32), asked)["0"]
    read = sparse.counters.attended_layers
    assert [count > 0 for count in read] == [True, True, True, False, True]
    assert max(read) <= NEW * 2 * 32


@pytest.mark.parametrize("ratio", [1, 3])
def test_kv_is_that_of_the_anchors(ratio: int) -> None:
    """1 / (r + 1) of that of all layers, and states that do not grow."""
    full = engine_of(make_mixed(*["attention"] * 4)).runner
    mixed = engine_of(make_mixed(*(["attention"] + ["gated_deltanet"] * ratio) * (4 // (ratio + 1)))).runner
    assert sum(mixed.capacity.page_bytes) * (ratio + 1) == sum(full.capacity.page_bytes)
    assert full.cache.states is None and mixed.cache.states is not None
    layer = make_mixed("gated_deltanet").model.model.layers[0].mixer
    assert mixed.cache.states.bytes == 4 * (4 - 4 // (ratio + 1)) * 4 * layer.key_dim * layer.value_dim
