"""Chains of a real text at a length, set up again and again without reading it again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pydoc_data.topics import topics  # type: ignore[import-untyped]

import torch

from seer_ray.bench.steps import ROOM, lengthen
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.kernels.quantise import tensors
from seer_ray.models.load import LoadedModel


def text_tokens(loaded: LoadedModel, count: int) -> list[int]:
    """Of Python's own documentation, which is wherever this runs."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    while len(found := loaded.tokenizer.encode(text[: 8 * count], add_special_tokens=False)) < count:
        text += text
    return list(found[:count])


@dataclass(frozen=True)
class Prefilled:
    """A prompt as the cache has it, for engines with the same selector."""

    tokens: list[int]
    kept: list[tuple[list[torch.Tensor], torch.Tensor | None]]
    """Of each layer: what K and V are kept in, and summaries, ``[pages, ...]``."""


def prefill(
    loaded: LoadedModel, settings: EngineConfig, selector: SelectorConfig, tokens: list[int]
) -> Prefilled:
    """All tokens but the last are computed."""
    engine = Engine(loaded, settings, selector)
    engine.submit(Request("0", tokens, SamplingParams(2)))
    while not (running := engine.scheduler.running) or not running[0].ready:
        engine.step()
    (sequence,), cache = running, engine.runner.cache
    kept: list[tuple[list[torch.Tensor], torch.Tensor | None]] = []
    for kv, summary, group in zip(cache.kv, cache.summary, cache.group_of, strict=True):
        if kv is None or group is None:
            kept.append(([], None))
            continue
        pages = torch.tensor(sequence.pages[group], device=loaded.device)
        numbers = [part[pages].clone() for part in tensors(kv) if part is not None]
        kept.append((numbers, None if summary is None else summary[pages].clone()))
    return Prefilled(tokens, kept)


def decoding(
    loaded: LoadedModel,
    settings: EngineConfig,
    selector: SelectorConfig,
    prompt: Prefilled,
    batch: int,
    sampling: SamplingParams,
) -> Engine:
    """An engine in which so many samples of a prompt stand at its end, each with pages of its own."""
    engine = Engine(loaded, settings, selector)
    for index in range(batch):
        engine.submit(Request(str(index), (1, 2 + index), sampling, problem=str(index)))
    while len(engine.scheduler.running) < batch or not all(one.ready for one in engine.scheduler.running):
        engine.step()
    context = len(prompt.tokens) - 1
    lengthen(engine, context)
    cache = engine.runner.cache
    for sequence in engine.scheduler.running:
        sequence.tokens[:] = prompt.tokens
        for kv, summary, group, (numbers, keys) in zip(
            cache.kv, cache.summary, cache.group_of, prompt.kept, strict=True
        ):
            if kv is None or group is None:
                continue
            pages = torch.tensor(sequence.pages[group][: len(numbers[0])], device=loaded.device)
            for part, own in zip(filter(lambda part: part is not None, tensors(kv)), numbers, strict=True):
                assert part is not None
                part[pages] = own
            if summary is not None and keys is not None:
                summary[pages] = keys
    return engine


def room(loaded: LoadedModel, context: int) -> int:
    """Longest chain of an engine whose chains begin at a length."""
    return min(context + ROOM, loaded.max_context)


def crossing(ratios: dict[int, float]) -> int | None:
    """The context from which a ratio is above 1, between those measured by a straight line; None: nowhere."""
    found = sorted(ratios.items())
    if found[-1][1] <= 1:
        return None
    if all(ratio > 1 for _, ratio in found):
        return found[0][0]
    (left, low), (right, high) = [pair for pair in itertools.pairwise(found) if pair[0][1] <= 1 < pair[1][1]][
        -1
    ]
    return round(left + (right - left) * (1 - low) / (high - low))
