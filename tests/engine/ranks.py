"""One of two processes that decode together, and what they decode; importable there."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from engines import TinyModel, outcome, request, tokens
from models.test_architecture import DensePass, random_model
from tiny import make_tiny, tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Completion, Engine
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.engine.parallel import Leader, follow
from seer_ray.models.families import OURS
from seer_ray.models.gate import AttnGate
from seer_ray.models.group import ALONE, Group, join
from seer_ray.models.patch import forward_tokens, patch_attention
from seer_ray.models.shard import shard_gates, shard_model

MODELS: dict[str, dict[str, Any]] = {
    "g2": {"family": "qwen3"},
    "g1": {"family": "qwen2", "num_key_value_heads": 4},
    "biased": {"family": "llama", "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
}
SELECTORS: dict[str, dict[str, Any]] = {
    "dense": {},
    "quest": {"budget": 48},
    "seer": {"budget": 48},
    "random": {"budget": 48},
    "seer-threshold": {"name": "seer", "budget": 96, "threshold": 0.2},
    "seer-mass": {"name": "seer", "budget": 96, "mass": 0.7, "head_shares": {"0-1": [0.6, 1.7]}},
    "seer-graphs": {"name": "seer", "budget": 48},
}
CASES = [
    *(("g2", selector) for selector in SELECTORS),
    ("g1", "dense"),
    ("g1", "seer"),
    ("biased", "quest"),
]
DRAFTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "quest": ({"name": "quest", "budget": 48}, {"speculate": "4"}),
    "window": ({"name": "window", "budget": 48}, {"speculate": "3"}),
    "seer-exact": ({"name": "seer", "budget": 48}, {"speculate": "2", "exact": True}),
    "seer-graphs": ({"name": "seer", "budget": 48}, {"speculate": "3"}),
    "ngram": ({"name": "dense"}, {"speculate": "5", "drafter": "ngram"}),
    "auto": ({"name": "seer", "budget": 48}, {"speculate": "auto", "drafter": "both"}),
}
"""By case: what drafts, and how."""
EXACT = ("g2", "seer")
"""Case that is also decoded with ``exact``, two requests alone and all together."""


class Sharded(TinyModel):
    def load_gates(self, block_size: int) -> tuple[AttnGate | None, ...]:
        gates = super().load_gates(block_size)
        shard_gates(gates, self.group)
        return gates


class Stoppable(Engine):
    def stop(self) -> None:
        raise StopIteration


def engine_of(model: str, selector: str, group: Group = ALONE, exact: bool = False) -> Stoppable:
    said = SelectorConfig(**({"name": selector} | SELECTORS[selector]))
    return _engine(model, group, said, selector.endswith("graphs"), exact=exact)


def drafting(case: str, group: Group = ALONE) -> Stoppable:
    """One that speculates."""
    selector, settings = DRAFTED[case]
    return _engine("g2", group, SelectorConfig(**selector), case.endswith("graphs"), **settings)


def _engine(model: str, group: Group, selector: SelectorConfig, graphs: bool, **said: Any) -> Stoppable:
    made: Any = make_tiny(**MODELS[model])
    if group.size > 1:
        shard_model(made, group)
    cpu = torch.device("cpu")
    loaded = Sharded(made, tiny_tokenizer(), made.config, model, torch.float32, cpu, None, group)
    settings = EngineConfig(block_size=16, max_batch=3, prefill_chunk=64, tensor_parallel=group.size, **said)
    engine = Stoppable(loaded, settings, selector)
    if graphs and group.size > 1:  # the step that a GPU captures
        runner = engine.runner
        runner.captured = DecodeGraphs(loaded, runner.decoder, settings.max_batch, lambda step: step)
        runner.speculator = runner._speculator()
    return engine


def requests() -> list[Any]:
    """More than fit, of several lengths, greedy and drawn, two samples of one prompt; one is watched."""
    found = [request(f"p{n}", tokens(30 + 25 * n, seed=n), 24 + n) for n in range(3)]
    sampling = {"temperature": 0.8, "top_p": 0.9}
    found += [request(f"q/{sample}", tokens(70, seed=9), 30, **sampling) for sample in range(2)]
    found.append(request("r", tokens(55, seed=5), 20, temperature=1.0, repetition_penalty=1.2))
    found[1] = replace(found[1], record=True)
    return found


def repeating() -> list[Any]:
    """The same, half of them with a prompt in which n-grams find something."""
    return [
        replace(item, prompt=item.prompt[:12] * 4) if index % 2 == 0 else item
        for index, item in enumerate(requests())
    ]


def decode(engine: Any, wanted: list[Any]) -> dict[str, Any]:
    """Half of them come when the others are under way; one is given up."""
    waiting, steps = list(wanted), 0
    done: dict[str, Completion] = {}
    traces: dict[str, list[bytes]] = {}
    while waiting or engine.busy:
        if steps in (0, 7):
            for item in waiting[: (len(wanted) + 1) // 2]:
                engine.submit(item)
            del waiting[: (len(wanted) + 1) // 2]
        if steps == 12 and len(wanted) > 1:
            engine.abort("p0")
        for delta in engine.step():
            traces.setdefault(delta.request_id, []).extend(delta.trace)
            if delta.completion is not None:
                done[delta.request_id] = delta.completion
        steps += 1
    return {id: (*outcome(item), item.counters.attended_layers, traces[id]) for id, item in done.items()}


def logits(model_type: str, group: Group = ALONE) -> torch.Tensor:
    """Of a model of a supported type."""
    model = random_model(model_type)
    if group.size > 1:
        shard_model(model, group)
    patch_attention(model)
    prompt = torch.tensor(tokens(40))
    with torch.inference_mode():
        return model.lm_head(forward_tokens(model, prompt, DensePass(model.config, 40)))


def rank(number: int, meeting: socket.socket, folder: str) -> None:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    group = join(number, 2, meeting if number == 0 else meeting.getsockname()[1], cpu)
    made = {}
    for case in CASES:
        made[case] = together(engine_of(*case, group), requests())
    made["logits"] = {model_type: logits(model_type, group) for model_type in OURS}
    made["configured"] = together(engine_of("g2", "dense", group), requests(), SelectorConfig("quest", 48))
    made["alone"] = {
        item.id: together(engine_of(*EXACT, group, exact=True), [item]) for item in requests()[2:4]
    }
    made["exact"] = together(engine_of(*EXACT, group, exact=True), requests())
    made["drafts"] = {case: together(drafting(case, group), repeating()) for case in DRAFTED}
    if number == 0:
        torch.save(made, f"{folder}/made.pt")
    dist.destroy_process_group()


def together(engine: Stoppable, wanted: list[Any], then: SelectorConfig | None = None) -> dict[str, Any]:
    """What rank 0 gets, with another selector where there is one ``then``."""
    if engine.model.group.rank:
        with contextlib.suppress(StopIteration):
            follow(engine)
        return {}
    leader = Leader(engine)
    leader.warm_up()
    if then is not None:
        for memory, refused in (("1KB", pytest.raises(ConfigError)), ("auto", contextlib.nullcontext())):
            with refused:
                leader.configure(replace(engine.settings, kv_memory=memory), then)
    found = decode(leader, wanted)
    stats = leader.stats()
    found["bytes"], found["drafted"] = stats["decode_bytes"], stats.get("drafted", 0)
    with contextlib.suppress(StopIteration):
        leader._all("stop")
    return found
