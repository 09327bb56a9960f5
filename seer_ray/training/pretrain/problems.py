"""Batches of built-in problems, made as they are needed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import GeneratorConfig
from seer_ray.config.training import PretrainConfig, ProblemsConfig
from seer_ray.models.packed import Documents
from seer_ray.tasks.generators import Generated, generate
from seer_ray.training.pretrain.batch import NO_TARGET, Batch
from seer_ray.training.pretrain.tokenizer import answer_text, prompt_text

TRAINING_SEEDS = 2**32
"""Seeds of generators from here on belong to training: what ``seer-ray run`` asks is held out."""
MOST_PROBLEMS = 2**20
"""Of one training step."""
EVAL_TOKENS = 16384
"""Of held-out problems in one forward pass."""

T = TypeVar("T")


class Problems:
    """Problems of a built-in generator: a ``seer_ray.training.pretrain.batch.Data``."""

    def __init__(self, config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """As many problems as fill ``train.batch_tokens``; all equally long, unless ``data.mixed``."""
        target, train = self.config.data.targets, self.config.train
        if self.config.data.mixed:
            problems = self._mixed(step, world)
            mean = sum(self._length(step, index) for index in range(len(problems))) / len(problems)
            return pack(problems[rank::world], self.tokenizer, target, mean)
        first = self._problem(step, 0)
        count = max(1, train.batch_tokens // (self._size(first) * world))
        problems = [self._problem(step, rank + world * index) for index in range(count)]
        return pack(problems, self.tokenizer, target, self._length(step, 0))

    def _mixed(self, step: int, world: int) -> list[Generated]:
        """All ranks' problems: as many for each."""
        problems: list[Generated] = []
        room = self.config.train.batch_tokens
        while True:
            problem = self._problem(step, len(problems))
            room -= self._size(problem)
            if room < 0 and len(problems) >= world:
                return problems[: len(problems) // world * world]
            problems.append(problem)

    def _length(self, step: int, index: int) -> int:
        data, train = self.config.data, self.config.train
        return length(step, train.steps, train.seed, data, index if data.mixed else 0)

    def _problem(self, step: int, index: int) -> Generated:
        data = self.config.data
        steps = self._length(step, index)
        generator = GeneratorConfig(name=data.generator, steps=steps, difficulty=data.difficulty)
        return generate(generator, step * MOST_PROBLEMS + index, TRAINING_SEEDS + self.config.train.seed)

    def _size(self, problem: Generated) -> int:
        return len(pack([problem], self.tokenizer).tokens)

    def held_out(self) -> Iterator[tuple[str, Batch]]:
        """By length; problems that the model has no room for are left out."""
        for steps in self.config.evaluation.lengths:
            problems = held_out(self.config.data, steps, self.config.evaluation.problems)
            size = len(pack(problems[:1], self.tokenizer).tokens)
            if size > self.config.architecture.max_positions:
                continue
            for some in batched(problems, max(1, EVAL_TOKENS // size)):
                yield f"{steps}_steps", pack(some, self.tokenizer, steps=steps)


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Up to ``size`` items at a time."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def held_out(data: ProblemsConfig, steps: int, count: int) -> list[Generated]:
    """The problems that ``seer-ray run`` asks first."""
    generator = GeneratorConfig(name=data.generator, steps=steps, difficulty=data.difficulty)
    return [generate(generator, index) for index in range(count)]


def pack(
    problems: Sequence[Generated],
    tokenizer: PreTrainedTokenizerBase,
    targets: str = "solution",
    steps: float = 0,
) -> Batch:
    """Questions and solutions as chats, one document each.

    Args:
        targets: ``solution``: loss on the assistant's tokens alone; ``all``: on the question's too.
        steps: mean length of the problems, to be shown.
    """
    texts = [prompt_text(p.question) for p in problems] + [answer_text(p.solution) for p in problems]
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    prompts, answers = encoded[: len(problems)], encoded[len(problems) :]
    tokens: list[int] = []
    wanted: list[int] = []
    lengths: list[int] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        question, solution = prompt.ids, answer.ids
        tokens += question + solution
        # A token's target is the one after it.
        wanted += question[1:] if targets == "all" else [NO_TARGET] * (len(question) - 1)
        wanted += [*solution, NO_TARGET]
        lengths.append(len(question) + len(solution))
    arrays = (np.array(tokens, dtype=np.int64), np.array(wanted, dtype=np.int64))
    return Batch(torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1]), Documents(tuple(lengths)), steps)


def check_problems(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        ConfigError: problems shrink, or do not fit into the model, a row or a batch.
    """
    check_curriculum(config.data)
    if config.architecture.tokenizer is not None:
        raise ConfigError(
            f"architecture.tokenizer={config.architecture.tokenizer}: the built-in problems have their own; "
            "leave it out, or name text to learn by data.text"
        )
    longest = pack(held_out(config.data, config.data.end, 1), tokenizer)
    limit = min(config.train.length, config.architecture.max_positions)
    if (size := len(longest.tokens)) > limit:
        name = "train.length" if limit == config.train.length else "architecture.max_positions"
        raise ConfigError(
            f"data.end={config.data.end}: such a problem has about {size} tokens, {name} is {limit}; "
            "raise it, or lower data.end"
        )
    if size > config.train.batch_tokens:
        raise ConfigError(
            f"train.batch_tokens={config.train.batch_tokens}: must hold a problem of data.end="
            f"{config.data.end} steps, about {size} tokens"
        )


def longest(step: int, steps: int, config: ProblemsConfig) -> float:
    """The current maximum in generator steps: ``start`` at rest, then to ``end`` by a constant factor.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    since, growing = step - config.rest * steps, config.growth * steps
    progress = min(1.0, max(0.0, since / growing)) if growing else float(since >= 0)
    return config.start * (config.end / config.start) ** progress


def length(step: int, steps: int, seed: int, config: ProblemsConfig, index: int = 0) -> int:
    """Generator steps of a training step's problems, drawn evenly from ``shortest`` to 1 times the current
    maximum.

    Args:
        index: of the problem, where each has a length of its own.
    """
    name = f"length-{seed}-{step}" + (f"-{index}" if index else "")
    share = random.Random(name).uniform(config.shortest, 1.0)
    return max(2, round(share * longest(step, steps, config)))


def check_curriculum(config: ProblemsConfig) -> None:
    """Raises ConfigError if problems would shrink, or not be done growing."""
    if config.end < config.start:
        raise ConfigError(f"data.end={config.end}: must be at least data.start={config.start}")
    if config.rest + config.growth > 1:
        raise ConfigError(
            f"data.rest={config.rest:g}: must be at most {1 - config.growth:g}, what data.growth leaves"
        )
