"""Multi-query associative recall (Arora et al. 2023, arXiv:2312.04927): what a mixer can look up.

A row begins with pairs of a key and its value, all keys different; later each key stands once more, at a
random place, and there the model is to say its value. All other places have random values, so that no key is
ever seen with another value. Loss and accuracy are of the places that ask, and of no others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import PretrainConfig
from seer_ray.models.packed import Documents
from seer_ray.training.pretrain.batch import NO_TARGET, Batch
from seer_ray.training.pretrain.problems import check_curriculum, longest

HELD_OUT = 2**40
"""The number of the step that held-out rows are drawn of."""


class Recall:
    """A ``seer_ray.training.pretrain.batch.Data``. The pairs of a step grow as problems do."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """As many rows of ``train.length`` tokens as fill ``train.batch_tokens``."""
        train = self.config.train
        rows = max(1, train.batch_tokens // (train.length * world))
        pairs = round(longest(step, train.steps, self.config.data))
        return self._rows(step, rank, pairs, rows)

    def held_out(self) -> Iterator[tuple[str, Batch]]:
        """By the number of pairs."""
        for pairs in self.config.evaluation.lengths:
            yield f"{pairs}_pairs", self._rows(HELD_OUT, 0, pairs, self.config.evaluation.problems)

    def _rows(self, step: int, rank: int, pairs: int, rows: int) -> Batch:
        length, half = self.config.train.length, self.config.data.vocabulary // 2
        draw = np.random.default_rng([self.config.train.seed, step, rank, pairs])
        keys = draw.permuted(np.tile(np.arange(half), (rows, 1)), axis=1)[:, :pairs]
        values = draw.integers(half, 2 * half, (rows, pairs))
        tokens = draw.integers(half, 2 * half, (rows, length))
        tokens[:, : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2] = keys, values
        places = draw.permuted(np.tile(np.arange(2 * pairs, length), (rows, 1)), axis=1)[:, :pairs]
        np.put_along_axis(tokens, places, keys, axis=1)
        targets = np.full_like(tokens, NO_TARGET)
        np.put_along_axis(targets, places, values, axis=1)
        documents = Documents((length,) * rows)
        return Batch(
            torch.from_numpy(tokens).flatten(), torch.from_numpy(targets).flatten(), documents, float(pairs)
        )


def recall_tokenizer(vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Keys ``k0 k1 ...`` and values ``v0 v1 ...`` as words."""
    half = vocabulary // 2
    words = [f"{kind}{number}" for kind in "kv" for number in range(half)]
    special = {
        "pad_token": "<|pad|>",
        "bos_token": "<|start|>",
        "eos_token": "<|end|>",
        "unk_token": "<|unk|>",
    }
    ids = {word: index for index, word in enumerate([*words, *special.values()])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **special)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return fast


def check_recall(config: PretrainConfig) -> None:
    """
    Raises:
        ConfigError: pairs shrink, or do not fit into a row, the vocabulary, a batch or the context.
    """
    check_curriculum(config.data)
    train, half = config.train, config.data.vocabulary // 2
    if config.architecture.tokenizer is not None:
        raise ConfigError(
            f"architecture.tokenizer={config.architecture.tokenizer}: mqar has its own; leave it out"
        )
    asked = {"data.end": config.data.end} | {
        f"evaluation.lengths={config.evaluation.lengths}": pairs for pairs in config.evaluation.lengths
    }
    for option, pairs in asked.items():
        said = option if "=" in option else f"{option}={pairs}"
        if pairs > half:
            raise ConfigError(
                f"{said}: needs {pairs} keys, data.vocabulary={config.data.vocabulary} has {half}"
            )
        if 3 * pairs > train.length:
            raise ConfigError(
                f"{said}: {pairs} pairs and their questions need {3 * pairs} tokens, train.length="
                f"{train.length}; lower it, or raise train.length"
            )
    if train.length > config.architecture.max_positions:
        raise ConfigError(
            f"train.length={train.length}: must be at most architecture.max_positions="
            f"{config.architecture.max_positions}"
        )
    if train.length > train.batch_tokens:
        raise ConfigError(
            f"train.batch_tokens={train.batch_tokens}: must hold a row of train.length={train.length}"
        )
