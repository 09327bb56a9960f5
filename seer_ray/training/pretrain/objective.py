"""Next-token training of a small model."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.config.training import PretrainConfig
from seer_ray.models.load import load_tokenizer, resolve_device
from seer_ray.models.packed import Documents, PackedStep, mixers_of
from seer_ray.models.patch import forward_tokens, patch_attention
from seer_ray.models.rope import RopeTable
from seer_ray.training.pretrain.answers import answer_accuracy
from seer_ray.training.pretrain.batch import NO_TARGET, Batch, Data
from seer_ray.training.pretrain.card import write_card
from seer_ray.training.pretrain.model import check_sizes, make_model, relaxed_layers
from seer_ray.training.pretrain.problems import Problems, check_problems
from seer_ray.training.pretrain.recall import Recall, check_recall, recall_tokenizer
from seer_ray.training.pretrain.texts import Texts, check_texts
from seer_ray.training.pretrain.tokenizer import make_tokenizer

MQAR = "mqar"
"""Among ``data.generator``: no problems that are told in words."""


class Pretraining:
    """A ``seer_ray.training.loop.Objective``: cross entropy of the next token.

    Args:
        config: all options of the job.
        device: where to train, see ``model.device``.

    Raises:
        ConfigError: options that do not go together, or a text that cannot be read.
    """

    def __init__(self, config: PretrainConfig, device: str = "auto") -> None:
        self.config = config
        check_pretraining(config)
        self.tokenizer = tokenizer_of(config)
        self.data = self._data()
        self.device = resolve_device(device)
        fixed = self.data.batch(0, 0, 1).tokens  # what layers of the kind fixedseq look at
        self.module: Any = make_model(
            config.architecture, config.plan, self.tokenizer, config.train.seed, fixed
        )
        torch.nn.Module.to(self.module, self.device)
        patch_attention(self.module)
        self.module.train()
        self.rope = RopeTable.from_config(
            self.module.config, config.architecture.max_positions, device=self.device
        )
        self.mixers = mixers_of(self.module.config)
        self.relaxed = relaxed_layers(config.architecture, config.plan)

    def _data(self) -> Data:
        if self.config.data.text is not None:
            return Texts(self.config, self.tokenizer)
        if self.config.data.generator == MQAR:
            return Recall(self.config)
        return Problems(self.config, self.tokenizer)

    def batch(self, step: int, rank: int, world: int) -> Batch:
        return self.data.batch(step, rank, world)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits, targets = self._predict(batch)
        loss = cross_entropy(logits, targets)
        right = (logits.detach().argmax(-1) == targets).float().mean()
        values = {"tokens": float(len(batch.tokens)), "token_accuracy": right.item()}
        if batch.steps:
            values["problem_steps"] = float(batch.steps)
        return loss, values

    def _predict(self, batch: Batch, skip: Collection[int] = ()) -> tuple[Tensor, Tensor]:
        """fp32 logits ``[targets, vocabulary]`` where there is a target, and the targets ``[targets]``.
        ``skip``: layers of a mixed model that are left out."""
        step, tokens = PackedStep(batch.documents, self.rope, self.mixers), batch.tokens.to(self.device)
        if skip:
            hidden = self.module.model.hidden(tokens, step, skip)
        else:
            hidden = forward_tokens(self.module, tokens, step)
        chosen = (batch.targets != NO_TARGET).nonzero().squeeze(1)
        logits = self.module.lm_head(hidden[chosen.to(self.device)])
        return logits.float(), batch.targets[chosen].to(self.device)

    def evaluate(self) -> dict[str, float]:
        """By length of the problems, or of all text: loss and accuracy of the next token; of problems also
        the share solved, that is with every token right: then greedy decoding writes the very solution; of
        text the perplexity."""
        return self._evaluated(self.data.held_out())

    def finish(self) -> dict[str, float]:
        """What is measured once, at the end, in float32.

        ``NAME_context_N`` is of documents cut into pieces of N tokens, none of which sees another, over the
        same targets; ``NAME_skip`` of the model with its relaxed layers left out, where it has others beside
        them, and not trained further.
        """
        figures: dict[str, float] = {}
        for size in self.config.evaluation.contexts:
            cut = ((f"{name}_context_{size}", in_pieces(batch, size)) for name, batch in self.data.held_out())
            figures |= self._evaluated(cut)
        if self.relaxed:
            left = ((f"{name}_skip", batch) for name, batch in self.data.held_out())
            figures |= self._evaluated(left, self.relaxed)
        return figures

    def _evaluated(
        self, batches: Iterable[tuple[str, Batch]], skip: Collection[int] = ()
    ) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        for name, batch in batches:
            logits, targets = self._predict(batch, skip) if skip else self._predict(batch)
            hit = logits.argmax(-1) == targets
            solved = sum(bool(part.all()) for part in hit.split(batch.targets_per_document()))
            problems = len(batch.documents.lengths) if batch.steps else 0
            loss = cross_entropy(logits, targets, reduction="sum").item()
            found = torch.tensor([loss, hit.sum().item(), len(hit), solved, problems], dtype=torch.float64)
            sums[name] = sums.get(name, 0) + found
        figures: dict[str, float] = {}
        for name, (loss, right, count, solved, problems) in ((n, s.tolist()) for n, s in sums.items()):
            figures |= {f"{name}/loss": loss / count, f"{name}/token_accuracy": right / count}
            if problems:
                figures[f"{name}/solved"] = solved / problems
            else:
                figures[f"{name}/perplexity"] = math.exp(min(loss / count, 700.0))  # what a float holds
        return figures

    def save(self, folder: Path, report: dict[str, Any]) -> dict[str, float]:
        """An ordinary model folder; then what is measured once, answers by the engine, and a card that tells
        all this."""
        dtype: torch.dtype = getattr(torch, self.config.architecture.save_dtype)
        torch.nn.Module.to(copy.deepcopy(self.module), dtype).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.module.eval()
        with torch.no_grad():
            last = {f"eval/{name}": value for name, value in self.finish().items()}
        if isinstance(self.data, Problems):
            last |= answer_accuracy(folder, self.config)
        report["metrics"] |= last
        write_card(folder, self.config, report, self.module)
        return last


def check_pretraining(config: PretrainConfig) -> None:
    """Whether sizes, mixers and lengths go together; makes no model and reads no data.

    Raises:
        ConfigError: they do not.
    """
    check_sizes(config.architecture, config.plan)
    if config.data.text is not None:
        check_texts(config)
    elif config.data.generator == MQAR:
        check_recall(config)
    else:
        check_problems(config, make_tokenizer(config.architecture.max_positions))
    if short := [size for size in config.evaluation.contexts if size < 1]:
        raise ConfigError(f"evaluation.contexts={config.evaluation.contexts}: {short[0]} is no length")


def in_pieces(batch: Batch, size: int) -> Batch:
    """The same tokens and targets, in documents of ``size`` tokens at most."""
    lengths: list[int] = []
    for length in batch.documents.lengths:
        lengths += [size] * (length // size) + [length % size] * (length % size > 0)
    return replace(batch, documents=Documents(tuple(lengths)))


def tokenizer_of(config: PretrainConfig) -> PreTrainedTokenizerBase:
    """The built-in one, or the one that ``architecture.tokenizer`` names.

    Raises:
        ConfigError: there is none.
    """
    name, data = config.architecture.tokenizer, config.data
    if data.text is None and data.generator == MQAR:
        return recall_tokenizer(data.vocabulary, config.architecture.max_positions)
    if name is None:
        return make_tokenizer(config.architecture.max_positions)
    try:
        return load_tokenizer(ModelConfig(tokenizer=name))
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.tokenizer", "architecture.tokenizer")) from None
