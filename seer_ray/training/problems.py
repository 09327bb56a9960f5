"""Batches of built-in problems, made as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from seer_ray.config import GeneratorConfig, TrainConfig
from seer_ray.tasks.generators import Generated, generate
from seer_ray.training.curriculum import length
from seer_ray.training.mixers import Documents
from seer_ray.training.options import ProblemsConfig
from seer_ray.training.tokenizer import answer_text, prompt_text

TRAINING_SEEDS = 2**32
"""Seeds of generators from here on belong to training: what ``seer-ray run`` asks is held out."""
MOST_PROBLEMS = 2**20
"""Of one training step."""
NO_TARGET = -100


@dataclass(frozen=True)
class Batch:
    """Packed documents."""

    tokens: Tensor
    """``[tokens]``"""
    targets: Tensor
    """The token to be predicted at each position, or ``NO_TARGET``: ``[tokens]``."""
    documents: Documents
    steps: int = 0
    """Length of the problems, in generator steps."""


def training_batch(
    step: int,
    rank: int,
    world: int,
    data: ProblemsConfig,
    train: TrainConfig,
    tokenizer: PreTrainedTokenizerFast,
) -> Batch:
    """One rank's share of the problems of a training step: a function of its arguments.

    All problems of a step are equally long; as many as fill ``train.batch_tokens``.
    """
    steps = length(step, train.steps, train.seed, data)
    generator = GeneratorConfig(name=data.generator, steps=steps, difficulty=data.difficulty)
    seed, first = TRAINING_SEEDS + train.seed, step * MOST_PROBLEMS
    size = len(pack([generate(generator, first, seed)], tokenizer, data.targets).tokens)
    count = max(1, train.batch_tokens // (size * world))
    problems = [generate(generator, first + rank + world * index, seed) for index in range(count)]
    return pack(problems, tokenizer, data.targets, steps)


def held_out(data: ProblemsConfig, steps: int, count: int) -> list[Generated]:
    """The problems that ``seer-ray run`` asks first."""
    generator = GeneratorConfig(name=data.generator, steps=steps, difficulty=data.difficulty)
    return [generate(generator, index) for index in range(count)]


def pack(
    problems: Sequence[Generated],
    tokenizer: PreTrainedTokenizerFast,
    targets: str = "solution",
    steps: int = 0,
) -> Batch:
    """Questions and solutions as chats, one document each.

    Args:
        targets: ``solution``: loss on the assistant's tokens alone; ``all``: on the question's too.
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
