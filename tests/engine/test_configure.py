"""One loaded model, several settings in turn."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engines import make_engine, outcome, request, run, tiny_model, tokens

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine

SETTINGS = EngineConfig(block_size=16, max_batch=4, prefill_chunk=64)


@pytest.mark.parametrize("exact", [False, True])
def test_a_setting_gives_what_an_engine_of_its_own_gives(exact: bool) -> None:
    requests = [request(f"p/{n}", tokens(40 + 9 * n, n)) for n in range(3)]
    engine = make_engine(exact=exact)
    for selector in ("quest", "dense", "window", "seer"):
        settings = EngineConfig(block_size=16, max_batch=4, prefill_chunk=64, exact=exact)
        engine.configure(settings, SelectorConfig(name=selector, budget=32))
        alone = make_engine(selector=selector, budget=32, exact=exact)
        expected, found = run(alone, requests), run(engine, requests)
        assert {id: outcome(done) for id, done in found.items()} == {
            id: outcome(done) for id, done in expected.items()
        }
        assert engine.plan == alone.plan


def test_weights_stay_and_counters_go_on() -> None:
    engine = make_engine()
    run(engine, [request("p/0", tokens(20), new=5)])
    before = engine.stats()
    engine.configure(SETTINGS, SelectorConfig(name="quest", budget=32))
    assert engine.runner.loaded is tiny_model("qwen3")
    assert engine.stats()["new_tokens"] == before["new_tokens"] == 5
    assert engine.stats()["decode_s"] == before["decode_s"] > 0
    run(engine, [request("p/0", tokens(20), new=5)])
    assert engine.stats()["new_tokens"] == 10


def test_what_cannot_be_had_changes_nothing() -> None:
    engine = make_engine(selector="quest", budget=32)
    plan = engine.plan
    for settings, selector in (
        (EngineConfig(max_length=10**6), SelectorConfig()),
        (SETTINGS, SelectorConfig(name="quest", budget=16)),
        (SETTINGS, SelectorConfig(layers={"7": "dense"})),
        (EngineConfig(kv_memory="1KB"), SelectorConfig()),
    ):
        with pytest.raises(ConfigError):
            engine.configure(settings, selector)
        assert engine.plan == plan
    asked = [request("p/0", tokens(40), new=10)]
    (found,) = run(engine, asked).values()
    (expected,) = run(make_engine(selector="quest", budget=32), asked).values()
    assert outcome(found) == outcome(expected)


def test_not_while_there_are_requests() -> None:
    engine = make_engine()
    engine.submit(request("p/0", tokens(20), new=5))
    with pytest.raises(RuntimeError, match="requests in it"):
        engine.configure(SETTINGS, SelectorConfig())


def test_steps_are_counted_by_how_they_run() -> None:
    engine = make_engine(exact=True)
    run(engine, [request("p/0", tokens(20), new=5)])
    stats = engine.stats()
    assert (stats["captured_steps"], stats["eager_steps"]) == (0, 5)
    assert engine.runner.uncaptured == "engine.exact=true" and engine.slow is None
    engine.configure(SETTINGS, SelectorConfig(name="oracle", budget=32))
    run(engine, [request("p/0", tokens(20), new=5)])
    assert engine.stats()["eager_steps"] == 10
    assert (
        engine.slow == "decode steps run operation by operation, slower: the selector oracle reads all keys"
    )


def test_fast_steps_can_be_required() -> None:
    fast = replace(SETTINGS, require_fast=True)
    with pytest.raises(ConfigError, match=r"^engine\.require_fast=true: .* oracle reads all keys$"):
        Engine(tiny_model("qwen3"), fast, SelectorConfig(name="oracle", budget=32))
    engine = Engine(tiny_model("qwen3"), fast, SelectorConfig(name="quest", budget=32))
    with pytest.raises(ConfigError, match=r"engine\.exact=true$"):
        engine.configure(replace(fast, exact=True), SelectorConfig())
    assert len(run(engine, [request("p/0", tokens(20), new=5)])) == 1
