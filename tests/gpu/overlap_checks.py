"""Decode steps that are launched before the last one is read, on a GPU that lags behind. No pytest here."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from engines import outcome, request, run, thinking, tokens
from gpu.graph_checks import SAMPLING, make
from triton_checks import Check

from seer_ray.engine import Engine, Request

LAG = 2_000_000
"""Cycles, about a millisecond, that the device waits before each step: the host is far ahead of it."""
OWN: dict[str, Any] = {"presence_penalty": 0.5, "logit_bias": ((5, 2.0),), "min_new_tokens": 3, "logprobs": 2}
"""What is not sampled in the graph."""


def lagging(engine: Engine) -> Engine:
    steps: Any = engine.runner.captured
    launched = steps.run

    def later(*arguments: Any) -> Any:
        torch.cuda._sleep(LAG)
        return launched(*arguments)

    steps.run = later
    return engine


def requests(count: int, **sampling: Any) -> list[Request]:
    """The thinking of every third one is ended by force."""
    lengths = (1, 15, 16, 17, 33, 63, 64, 100, 5, 31, 32, 48)[:count]
    return [
        request(
            f"{n}/0",
            tokens(length, seed=n),
            12 + 5 * n,
            thinking=None if n % 3 else thinking(4, 7, 8, 9),
            **(SAMPLING[n % len(SAMPLING)] | sampling),
        )
        for n, length in enumerate(lengths)
    ]


def overlapping_gives_what_waiting_gives(selector: str, dtype: torch.dtype) -> None:
    """Five chains of known length in five rows are the same steps either way: bit for bit. Twelve that end
    when nobody knew are other steps, so the same tokens in fp32 only."""
    batches = [requests(5), requests(5, **OWN)]
    if dtype == torch.float32:
        batches.append(requests(12, eos_token_ids=tuple(range(0, 260, 13)), stop=("e", "q"), **OWN))
    for batch in batches:
        found = []
        for overlap in (False, True):
            engine = lagging(make(selector, dtype))
            assert engine.overlap, "steps overlap on a GPU"
            engine.overlap = overlap
            found.append({id: outcome(done) for id, done in run(engine, batch).items()})
            assert engine.runner.uncaptured is None
        assert found[0] == found[1]


def nothing_waits_for_the_device(selector: str) -> None:
    """Prompts and steps are launched without an operation that stops the host."""
    engine = make(selector, torch.bfloat16)
    batches = requests(12), requests(12, **OWN, eos_token_ids=(7,))
    for batch in batches:  # captures
        run(engine, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            run(engine, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def overlap_checks() -> list[Check]:
    selectors = ("dense", "seer", "quest")
    return [
        (
            f"overlapping_gives_what_waiting_gives {selector} {dtype}",
            partial(overlapping_gives_what_waiting_gives, selector, dtype),
        )
        for selector in selectors
        for dtype in (torch.float32, torch.bfloat16)
    ] + [
        (f"nothing_waits_for_the_device {selector}", partial(nothing_waits_for_the_device, selector))
        for selector in selectors
    ]
