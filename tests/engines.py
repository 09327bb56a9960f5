"""Engines around tiny random models: ``from engines import make_engine, request, run``."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from families import make_family
from tiny import FAMILIES, make_tiny, tiny_tokenizer

from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Completion, Engine, Request, SamplingParams
from seer_ray.engine.forcing import Ending, Thinking, ThinkingMarks
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates
from seer_ray.models.load import LoadedModel
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.prefill_gates import PrefillGateConfig, init_prefill_gates

SELECTOR = (
    *("threshold", "mass", "fraction", "sink", "layers", "shares", "head_shares"),
    *("sparse_prefill", "prefill", "dense_layers"),
)
"""Options of the selector that ``make_engine`` takes beside its name and budget."""
SELECTORS = ("dense", "seer", "quest", "oracle", "window", "random")


class TinyModel(LoadedModel):
    """With random gates for any block size, each head with a temperature of its own."""

    def load_gates(self, block_size: int) -> tuple[AttnGate | None, ...]:
        gates = init_gates(self.hf_config, GateConfig(block_size=block_size, gate_dim=8), seed=3)
        for gate in filter(None, gates):
            gate.temperature = tuple(0.7 + 0.6 * head for head in range(gate.num_kv_heads))
        return gates

    def load_prefill_gates(self, block_size: int) -> tuple[PrefillGate | None, ...]:
        return init_prefill_gates(self.hf_config, PrefillGateConfig(block_size, gate_dim=16), seed=5)


@cache
def tiny_model(family: str, **overrides: Any) -> TinyModel:
    """One for all tests, so none may change it."""
    model = make_tiny(family, **overrides)
    return TinyModel(model, tiny_tokenizer(), model.config, family, torch.float32, torch.device("cpu"))


@cache
def family_model(family: str, **overrides: Any) -> TinyModel:
    """Likewise, of any supported type: see ``families``; lists are tuples in ``overrides``."""
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in overrides.items()}
    model = make_family(family, **listed)
    return TinyModel(model, tiny_tokenizer(), model.config, family, torch.float32, torch.device("cpu"))


def make_engine(
    family: str = "qwen3", selector: str = "dense", budget: int = 1024, block: int = 16, **settings: Any
) -> Engine:
    """``settings`` are options of the engine, or of the selector where it has them."""
    ours = {name: settings.pop(name) for name in SELECTOR if name in settings}
    engine = EngineConfig(**({"block_size": block, "max_batch": 4, "prefill_chunk": 64} | settings))
    model = tiny_model(family) if family in FAMILIES else family_model(family)
    return Engine(model, engine, SelectorConfig(name=selector, budget=budget, **ours))


def eager(engine: Engine) -> Engine:
    """The engine, decoding operation by operation."""
    engine.runner.captured = None
    return engine


def kv_memory(engine: Engine, pages: int) -> str:
    """The setting that gives an engine like this one so many pages."""
    return str((pages + 1) * engine.runner.capacity.page_bytes[0])


def tokens(count: int, seed: int = 0) -> tuple[int, ...]:
    """A random prompt."""
    draw = random.Random(seed)
    return tuple(draw.randrange(256) for _ in range(count))


def request(id: str, prompt: Iterable[int], new: int = 20, **sampling: Any) -> Request:
    """Greedy unless ``sampling`` says otherwise; ``problem/sample`` as id gives both."""
    problem, _, sample = id.partition("/")
    return Request(id, tuple(prompt), SamplingParams(new, **sampling), 7, problem, int(sample or 0))


def thinking(budget: int, *close: int) -> Thinking:
    """Opened by the prompt; ended by these tokens, which only a budget puts there."""
    ending = Ending("C", (close,))
    return Thinking({}, (ThinkingMarks(("O",), (ending,), ending),), 0, budget)


def around_pages(*sampling: dict[str, Any]) -> list[Request]:
    """Prompts that end before, at and after the end of a page of 16, sampled in these ways by turns."""
    ways = sampling or ({},)
    return [
        request(f"{n}/0", tokens(length, seed=n), 12 + 5 * n, **ways[n % len(ways)])
        for n, length in enumerate((1, 15, 16, 17, 33, 63, 64, 100))
    ]


def run(engine: Engine, requests: Iterable[Request]) -> dict[str, Completion]:
    """All of them in one batch, as far as they fit."""
    for item in requests:
        engine.submit(item)
    done = {completion.request.id: completion for completion in engine.run()}
    engine.scheduler.check()
    assert all(pool.used == 0 for pool in engine.scheduler.pools)
    return done


def outcome(completion: Completion) -> tuple[Any, ...]:
    """All that must not depend on how a request was run."""
    return (
        completion.tokens,
        completion.text,
        completion.finish_reason,
        completion.error,
        completion.counters.attended_kv,
        completion.counters.available_kv,
    )


def outcomes(done: Mapping[str, Completion]) -> dict[str, tuple[Any, ...]]:
    """By request."""
    return {id: outcome(completion) for id, completion in done.items()}
