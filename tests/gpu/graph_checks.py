"""Decoding by CUDA graphs against the same step launched operation by operation. No pytest here."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from engines import TinyModel, outcome, request, run, tokens
from tiny import make_tiny, tiny_tokenizer
from triton_checks import Check

from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine
from seer_ray.engine.graphs import DecodeGraphs

SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 0.7, "top_k": 20, "min_p": 0.02},
    {"repetition_penalty": 1.3},
]


class OnDevice(TinyModel):
    def load_gates(self, block_size: int) -> Any:
        return tuple(gate.to(self.device) for gate in super().load_gates(block_size) if gate is not None)


def make(selector: str, dtype: torch.dtype, layers: int = 2) -> Engine:
    """Of five rows."""
    device = torch.device("cuda")
    model = make_tiny("qwen3", num_hidden_layers=layers).to(device, dtype)
    loaded = OnDevice(model, tiny_tokenizer(), model.config, "qwen3", dtype, device)
    settings = EngineConfig(block_size=16, max_batch=5, prefill_chunk=64, kv_memory="64MiB")
    return Engine(loaded, settings, SelectorConfig(name=selector, budget=48))


def completions(way: str, selector: str, dtype: torch.dtype) -> dict[str, Any]:
    """Of twelve chains in five rows. ``way``: graph, step (the graph's, not captured) or eager."""
    engine = make(selector, dtype)
    graphs, runner = engine.runner.captured, engine.runner
    assert graphs is not None
    if way == "step":
        runner.captured = DecodeGraphs(runner.loaded, runner.decoder, 5, lambda step: step)
    elif way == "eager":
        runner.captured = None
    lengths = (1, 15, 16, 17, 33, 63, 64, 100, 5, 31, 32, 48)
    requests = [
        request(f"{n}/0", tokens(length, seed=n), 12 + 5 * n, **SAMPLING[n % len(SAMPLING)])
        for n, length in enumerate(lengths)
    ]
    done = {id: outcome(completion) for id, completion in run(engine, requests).items()}
    assert graphs.failure is None, f"capture failed: {graphs.failure}"
    return done


def replays_give_what_steps_give(selector: str, dtype: torch.dtype) -> None:
    """Bit for bit, so in all dtypes; in fp32 the eager step, of other shapes, gives the same tokens too."""
    captured = completions("graph", selector, dtype)
    assert captured == completions("step", selector, dtype)
    if dtype == torch.float32:
        assert captured == completions("eager", selector, dtype)


def graph_checks() -> list[Check]:
    selectors = ("dense", "seer", "quest", "window", "random")
    return [
        (
            f"replays_give_what_steps_give {selector} {dtype}",
            partial(replays_give_what_steps_give, selector, dtype),
        )
        for selector in selectors
        for dtype in (torch.float32, torch.bfloat16)
    ]
