"""Rows for tests of results."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from seer_ray.config.options import ClusterConfig, RunConfig, SelectorConfig
from seer_ray.engine.request import Counters
from seer_ray.results.chain import Chain
from seer_ray.results.progress import ProgressLog

RUN = "0123456789abcdef"
"""A run's id."""
CONFIG = RunConfig(selector=SelectorConfig(name="seer", budget=2048), cluster=ClusterConfig(workers=2))


def row(problem: str, sample: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "problem_id": problem,
        "sample": sample,
        "seed": 0,
        "prompt": f"What is {problem}?",
        "completion": f"It is {problem}.",
        "token_ids": [1, 2, 3],
        "finish_reason": "stop",
        "extracted_answer": problem,
        "reference": problem,
        "correct": True,
        "prompt_tokens": 4,
        "completion_tokens": 3,
        "attended_kv": 30,
        "available_kv": 60,
        "queued_s": 0.5,
        "prefill_s": 0.25,
        "decode_s": 1.0,
        "preemptions": 0,
        "attempts": 1,
        "worker": "w0",
        "model": "tiny",
        "selector": "2Lseer2048b64",
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
        **changes,
    }


def append(
    log: ProgressLog,
    id: str,
    tokens: Iterable[int],
    counters: Counters,
    attempts: int,
    offset: int | None = None,
    trace: Sequence[bytes] = (),
    logprobs: Sequence[bytes] = (),
) -> None:
    """New tokens of a chain, maybe in place of those from ``offset`` on."""
    chain = log.chains.setdefault(id, Chain())
    if offset is not None:
        chain.cut(offset)
    chain.attempts = attempts
    chain.extend(list(tokens), counters, trace, logprobs)
