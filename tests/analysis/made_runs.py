"""Run folders made by the writers themselves, without a model."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seer_ray.analysis.metrics import summarise
from seer_ray.config.options import RunConfig
from seer_ray.engine.trace import Trace, TraceEncoder
from seer_ray.results import schema
from seer_ray.results.folder import RunFolder
from seer_ray.results.selections import Recording

LAYERS, HEADS, BLOCK = 6, 2, 16
EVIL = (
    "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 2'> "
    "]]> <!-- \u2028 \\u003c {{data}} </title></style>"
)
"""A chain that breaks out of pages that do not escape."""


def make_config(folder: Path, selector: str, budget: int, problems: int, samples: int) -> RunConfig:
    config = RunConfig(name=f"{selector}-{budget}" if selector != "dense" else "dense", samples=samples)
    config.selector.name, config.selector.budget = selector, budget
    config.engine.block_size = BLOCK
    config.task.limit, config.task.name = problems, "made"
    config.results.folder = str(folder)
    config.tracking.enabled = False
    return config


def make_run(
    folder: Path,
    selector: str = "dense",
    budget: int = 2048,
    problems: int = 12,
    samples: int = 2,
    skill: float = 0.7,
    record: int = 0,
    evil: str = EVIL,
    thinking: int | None = None,
) -> Path:
    """A finished run. Problem 1 has ``evil`` in its id, prompt and chain; problem 2 has an error; sample 1
    of problem 3 has no answer and was cut off.

    Args:
        folder: where run folders are
        skill: chance that a sample is right, more for problems of a low number
        record: sample 0 of so many problems has its selection recorded
        thinking: budget of its thinking, beside runs of other budgets
    """
    config = make_config(folder, selector, budget, problems, samples)
    if thinking is not None:
        config.name, config.sampling.thinking_budget = f"{config.name}-{thinking}", thinking
    rows, recordings = [], {}
    for number in range(problems):
        for sample in range(samples):
            rows.append(row := _row(config, number, sample, skill, evil))
            if thinking is not None:
                thought = row["completion_tokens"] - 10
                row |= {"thinking_tokens": min(thought, thinking), "thinking_forced": thought >= thinking}
            if sample == 0 and number < record:
                recordings[row["problem_id"], sample] = _recording(config, row)
    metrics = {
        "speed/tokens_per_s": 80.0 + 20_000 / (budget + 150),
    }
    with RunFolder.open(str(folder / str(config.name)), config) as run:
        for key, recording in recordings.items():
            run.write_selection(key, recording)
        run.commit(rows)
        run.write_json("metrics.json", summarise(run.stream()) | metrics)
    return folder / str(config.name)


def _row(config: RunConfig, number: int, sample: int, skill: float, evil: str) -> dict[str, Any]:
    budget = config.selector.budget if config.selector.name != "dense" else 10**6
    draw = random.Random(f"{number}/{sample}/{budget}")
    right = random.Random(f"{number}/{sample}").random() + draw.gauss(0, 0.05) < skill * (
        1.3 - 0.5 * number / 12
    )
    # As long as a word a token, with a line for every step.
    words = draw.randint(60, 120 + 10 * number)
    lines = [
        f"x{i} = x{draw.randrange(i + 1)} + {draw.randrange(10)} = {draw.randrange(10)}"
        for i in range(words // 7)
    ]
    answer = str(number) if right else str(number + 1)
    text = "<think>" + "\n".join(lines) + f"</think>\nThe answer is \\boxed{{{answer}}}."
    pieces = text.replace(" ", "\0 ").replace("\n", "\0\n").split("\0")
    prompt_tokens = 40 + number
    contexts = [prompt_tokens + i for i in range(len(pieces))]
    available = sum(contexts) * LAYERS * HEADS
    layers = [sum(min(c, budget if layer else 10**6) for c in contexts) * HEADS for layer in range(LAYERS)]
    bad, cut = number == 2, number == 3 and sample == 1
    if number == 1:
        text = evil + text
    subject = ("algebra", "geometry")[number % 2]
    inputs = {"subject": subject, "level": 1 + number % 3, "page": number}
    kept = {"inputs": json.dumps(inputs)} if "inputs" in schema.NAMES else {}
    return kept | {
        "problem_id": evil if number == 1 else f"p{number}",
        "sample": sample,
        "seed": 0,
        "prompt": f"<|user|>Compute x{number}. {evil if number == 1 else ''}<|assistant|>",
        "completion": "" if bad else text,
        "token_ids": list(range(len(pieces))),
        "finish_reason": "error" if bad else "length" if cut else "stop",
        "extracted_answer": None if bad or cut else answer,
        "reference": str(number),
        "correct": None if bad else right and not cut,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(pieces),
        "attended_kv": sum(layers),
        "available_kv": available,
        "attended_kv_layers": layers,
        "queued_s": 0.5,
        "prefill_s": 0.25,
        "decode_s": 0.01 * len(pieces),
        "preemptions": 0,
        "attempts": 1,
        "worker": "w0",
        "model": config.model.name,
        "selector": f"{LAYERS}L:{config.selector.name}",
        "error": "its worker died: <b>out of memory</b>" if bad else None,
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


def _recording(config: RunConfig, row: dict[str, Any]) -> Recording:
    """The sink, a window and a few blocks that each head likes; the first layer is dense."""
    text = row["completion"]
    pieces = text.replace(" ", "\0 ").replace("\n", "\0\n").split("\0")[: row["completion_tokens"]]
    pieces += [""] * (row["completion_tokens"] - len(pieces))
    noise, encoder = np.random.default_rng(row["sample"]), TraceEncoder(BLOCK)
    budget = max(2, config.selector.budget // BLOCK)
    liking = noise.random((256, LAYERS, HEADS))
    entries = []
    for step in range(row["completion_tokens"]):
        blocks = (row["prompt_tokens"] - 1 + step) // BLOCK + 1
        liking += noise.normal(0, 0.03, liking.shape)
        score = liking[:blocks].copy()
        score[0], score[-1] = 9, 9
        score[-2:] += 0.3
        rank = (-score).argsort(0).argsort(0)
        seen = rank < budget
        seen[:, 0] = True
        entries.append(encoder.add(seen if config.selector.name != "dense" else np.ones_like(seen)))
    prompt = [f"w{i} " for i in range(row["prompt_tokens"])]
    return Recording(Trace(row["prompt_tokens"], entries), prompt, pieces)


def keep_inputs(patch: pytest.MonkeyPatch) -> None:
    """Rows have columns of the dataset."""
    if "inputs" not in schema.NAMES:
        patch.setattr(
            schema, "COLUMNS", (*schema.COLUMNS, schema.Column("inputs", schema.TEXT, "", "", True))
        )
        patch.setattr(schema, "NAMES", (*schema.NAMES, "inputs"))


def make_sweep(folder: Path, problems: int = 12, record: int = 2) -> list[Path]:
    """Dense and a few sparse settings of the same problems."""
    settings = [
        ("dense", 2048, 0.8),
        ("quest", 48, 0.5),
        ("quest", 96, 0.7),
        ("seer", 48, 0.65),
        ("seer", 96, 0.78),
    ]
    return [
        make_run(folder, name, budget, problems, skill=skill, record=record)
        for name, budget, skill in settings
    ]
