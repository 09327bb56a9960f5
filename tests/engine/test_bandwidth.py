"""Bytes of decode steps, counted beside what the selections say."""

from __future__ import annotations

import pytest
import torch
from engines import make_engine, request, run, tiny_model, tokens

from seer_ray.config.options import EngineConfig
from seer_ray.engine import Engine, bandwidth


@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
@pytest.mark.parametrize("selector", ["dense", "seer", "quest"])
def test_bytes_of_the_steps(selector: str, kv_dtype: str) -> None:
    """Two layers, two KV heads of 16 channels in fp32, or in 8 bits with a scale; 8 (gate) or 32 (Quest)
    numbers a block."""
    engine = make_engine(selector=selector, budget=32, kv_dtype=kv_dtype)
    (done,) = run(engine, [request("a", tokens(40), 20)]).values()
    model = engine.model.model
    weights = sum(p.nbytes for p in model.parameters()) - model.get_input_embeddings().weight.nbytes
    assert not model.config.tie_word_embeddings
    width = {"dense": 0, "seer": 8, "quest": 32}[selector]
    blocks = sum(length // 16 for length in range(40, 60))
    vector = 16 * 4 if kv_dtype == "auto" else 16 + 4
    expected = 20 * weights + done.counters.attended_kv * 2 * vector + blocks * 2 * 2 * width * 4
    assert engine.stats()["decode_bytes"] == expected


def test_tied_embeddings_are_read_as_the_last_weights() -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    engine = Engine(model, EngineConfig(block_size=16, max_batch=1))
    assert engine.runner.step_bytes.weights == sum(p.nbytes for p in model.model.parameters())


def test_the_floor_is_known_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seer_ray.engine.engine.copy_rate", lambda device: 1e9)
    engine = make_engine()
    assert "decode_floor_s" not in engine.stats()
    engine.warm_up()
    assert engine.stats()["decode_bytes"] == engine.stats()["decode_floor_s"] == 0
    run(engine, [request("a", tokens(40), 20)])
    assert engine.stats()["decode_floor_s"] == engine.stats()["decode_bytes"] / 1e9 > 0


def test_copy_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bandwidth.COPY_BYTES, "cpu", 1 << 20)
    device = torch.device("cpu")
    bandwidth.copy_rate.cache_clear()
    assert bandwidth.copy_rate(device) == bandwidth.copy_rate(device) > 1e6
    bandwidth.copy_rate.cache_clear()
