"""``engine.exact``: a completion is bit for bit the same whatever happens around it.

Tokens alone would hardly tell: a difference in the last bit seldom changes one. So logits are compared.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import TinyModel, kv_memory, make_engine, outcome, request, run, tiny_model, tokens
from tiny import make_tiny, tiny_config, tiny_tokenizer
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Completion, Engine, Progress, Request, eager
from seer_ray.engine.sequence import Sequence
from seer_ray.kernels import compiled, cpu

KINDS: list[dict[str, Any]] = [
    {"selector": name, "budget": 32} for name in ("dense", "seer", "quest", "oracle")
]
KINDS.append({"selector": "quest", "budget": 64, "threshold": 0.1})
KINDS.append({"selector": "seer", "budget": 64, "mass": 0.7})
KINDS += [{"selector": "seer", "budget": 32, "kv_dtype": "int8"}]
KINDS += [{"selector": "quest", "budget": 32, "kv_dtype": "float8_e4m3"}]
KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Two, which may share a product of few rows so that a row's bits depend on its place."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


Logits = dict[tuple[str, int], bytes]


@pytest.fixture(autouse=True)
def logits(monkeypatch: pytest.MonkeyPatch) -> Logits:
    """Of every token of every request: the first to be made; all later ones must be the same."""
    seen: Logits = {}

    def spy(rows: torch.Tensor, sequences: list[Sequence]) -> list[int]:
        for row, sequence in zip(rows, sequences, strict=True):
            bits = row.float().numpy().tobytes()
            first = seen.setdefault((sequence.request.id, sequence.generated), bits)
            assert bits == first, f"{sequence.request.id}: token {sequence.generated} has other logits"
        return sample(rows, sequences)

    sample = eager.sample
    monkeypatch.setattr(eager, "sample", spy)
    return seen


def requests() -> list[Request]:
    """Greedy and sampled, five samples of one prompt among prompts of their own."""
    draw = random.Random(1)
    found = []
    for number in range(12):
        length = draw.choice([1, 5, 16, 17, 33, 64, 65, 100])
        prompt = tokens(length, seed=number) if number % 3 else tokens(39)
        id = f"{number}/0" if number % 3 else f"shared/{number}"
        sampling = {"temperature": 0.8, "top_p": 0.95} if number % 2 else {}
        found.append(request(id, prompt, draw.randrange(20, 50), **sampling))
    return found


def outcomes(done: Iterable[Completion]) -> dict[str, tuple[Any, ...]]:
    return {completion.request.id: outcome(completion) for completion in done}


def alone(kind: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    engine = make_engine(**kind, exact=True, max_batch=1)
    return outcomes(completion for item in requests() for completion in run(engine, [item]).values())


@KIND
def test_mates_order_preemption_and_continuation(kind: dict[str, Any], logits: Logits) -> None:
    expected = alone(kind)
    assert len(logits) == sum(len(tokens) for tokens, *_ in expected.values())
    assert {reason for _, _, reason, *_ in expected.values()} <= {"length", "stop"}

    for max_batch in (16, 6):
        engine = make_engine(**kind, exact=True, max_batch=max_batch)
        shuffled = random.Random(max_batch).sample(requests(), 12)
        assert outcomes(run(engine, shuffled).values()) == expected

    small = make_engine(**kind, exact=True, max_batch=8, kv_memory=kv_memory(engine, 20))
    assert outcomes(run(small, requests()).values()) == expected
    assert small.stats()["preemptions"] > 0

    for steps in (13, 40):
        assert outcomes(interrupted(kind, steps)) == expected


def interrupted(kind: dict[str, Any], steps: int) -> list[Completion]:
    """Runs for some steps, and goes on in another engine from what the deltas said."""
    first = make_engine(**kind, exact=True, max_batch=16)
    for item in requests():
        first.submit(item)
    done, so_far = [], {item.id: Progress() for item in requests()}
    for _ in range(steps):
        for delta in first.step():
            assert delta.counters is not None
            before = so_far[delta.request_id].tokens
            so_far[delta.request_id] = Progress((*before, *delta.tokens), delta.counters)
            if delta.completion is not None:
                done.append(delta.completion)
    finished = {completion.request.id for completion in done}
    assert len(finished) < 12 and any(progress.tokens for progress in so_far.values())
    rest = [
        replace(item, progress=so_far[item.id]) for item in reversed(requests()) if item.id not in finished
    ]
    return [*done, *run(make_engine(**kind, exact=True, max_batch=5), rest).values()]


def engine_of(model: TinyModel, max_batch: int, kv_dtype: str) -> Engine:
    settings = EngineConfig(16, max_batch, kv_dtype=kv_dtype, prefill_chunk=32, exact=True)
    return Engine(model, settings, SelectorConfig(name="quest", budget=32))


def mixture() -> TinyModel:
    """Tokens that go to one expert share products with their mates."""
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    config = Qwen3MoeConfig(**(tiny_config("qwen3").to_dict() | {"model_type": "qwen3_moe"} | sizes))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    return TinyModel(model, tiny_tokenizer(), config, "mixture", torch.float32, torch.device("cpu"))


def in_bfloat16() -> TinyModel:
    model = make_tiny("llama").bfloat16()
    return TinyModel(model, tiny_tokenizer(), model.config, "llama", torch.bfloat16, torch.device("cpu"))


def wide() -> TinyModel:
    """With activations so wide that threads would cut them in the midst of a row."""
    return tiny_model("llama", intermediate_size=11008)


@pytest.mark.parametrize(
    ("make", "kv_dtype"),
    [(mixture, "auto"), (in_bfloat16, "auto"), (in_bfloat16, "int8"), (wide, "auto")],
)
def test_models(make: Any, kv_dtype: str) -> None:
    model = make()
    one_by_one = (run(engine_of(model, 1, kv_dtype), [item]) for item in requests())
    expected = outcomes(completion for done in one_by_one for completion in done.values())
    torch.set_num_threads(3)
    assert outcomes(run(engine_of(model, 7, kv_dtype), requests()).values()) == expected


@pytest.mark.parametrize("selector", ["dense", "seer", "quest"])
def test_compiled_decode_steps_are_so_without_it(selector: str) -> None:
    """Prompts of one token, since prompts are products of torch's."""
    if compiled.binary() is None:
        pytest.skip("no C++ compiler")
    ours = [request(str(seed), tokens(1, seed), 36, temperature=seed / 3) for seed in range(3)]

    def outcomes_of(max_batch: int, threads: int) -> dict[str, tuple[Any, ...]]:
        torch.set_num_threads(threads)
        settings = EngineConfig(block_size=16, max_batch=max_batch)
        return outcomes(
            run(Engine(wide(), settings, SelectorConfig(name=selector, budget=32)), ours).values()
        )

    expected = outcomes_of(1, threads=1)
    assert outcomes_of(3, threads=2) == expected


@pytest.mark.parametrize("selector", ["seer", "quest"])
def test_without_compiled_operations(selector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "takes", lambda *_: False)
    kind = {"selector": selector, "budget": 32}
    expected = alone(kind)
    assert outcomes(run(make_engine(**kind, exact=True, max_batch=7), requests()).values()) == expected


def test_threads_are_given_back() -> None:
    run(make_engine(exact=True), [request("a", tokens(20), 3)])
    assert torch.get_num_threads() == 2
