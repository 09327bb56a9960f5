"""Next-token training of a small model."""

from __future__ import annotations

import copy
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
from seer_ray.models.patch import forward_tokens, patch_attention
from seer_ray.models.rope import RopeTable
from seer_ray.training.pretrain.answers import answer_accuracy
from seer_ray.training.pretrain.batch import NO_TARGET, Batch, Data
from seer_ray.training.pretrain.card import write_card
from seer_ray.training.pretrain.mixers import PackedStep, mixers_of
from seer_ray.training.pretrain.model import check_sizes, make_model
from seer_ray.training.pretrain.problems import Problems, check_problems
from seer_ray.training.pretrain.texts import Texts, check_texts
from seer_ray.training.pretrain.tokenizer import make_tokenizer


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
        self.data: Data = (Problems if config.data.text is None else Texts)(config, self.tokenizer)
        self.device = resolve_device(device)
        self.module = make_model(config.architecture, self.tokenizer, config.train.seed)
        torch.nn.Module.to(self.module, self.device)
        patch_attention(self.module)
        self.module.train()
        self.rope = RopeTable.from_config(
            self.module.config, config.architecture.max_positions, device=self.device
        )
        self.mixers = mixers_of(self.module.config)

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

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """fp32 logits ``[targets, vocabulary]`` where there is a target, and the targets ``[targets]``."""
        step = PackedStep(batch.documents, self.rope, self.mixers)
        hidden = forward_tokens(self.module, batch.tokens.to(self.device), step)
        chosen = (batch.targets != NO_TARGET).nonzero().squeeze(1)
        logits = self.module.lm_head(hidden[chosen.to(self.device)])
        return logits.float(), batch.targets[chosen].to(self.device)

    def evaluate(self) -> dict[str, float]:
        """By length of the problems, or of all text: loss and accuracy of the next token; of problems also
        the share solved, that is with every token right: then greedy decoding writes the very solution."""
        sums: dict[str, Tensor] = {}
        for name, batch in self.data.held_out():
            logits, targets = self._predict(batch)
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
        return figures

    def save(self, folder: Path, report: dict[str, Any]) -> dict[str, float]:
        """An ordinary model folder; then answers by the engine, and a card that tells all this."""
        dtype: torch.dtype = getattr(torch, self.config.architecture.save_dtype)
        torch.nn.Module.to(copy.deepcopy(self.module), dtype).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        answers = answer_accuracy(folder, self.config) if self.config.data.text is None else {}
        report["metrics"] |= answers
        write_card(folder, self.config, report, self.module)
        return answers


def check_pretraining(config: PretrainConfig) -> None:
    """Whether sizes, mixers and lengths go together; makes no model and reads no data.

    Raises:
        ConfigError: they do not.
    """
    check_sizes(config.architecture)
    if config.data.text is None:
        check_problems(config, make_tokenizer(config.architecture.max_positions))
    else:
        check_texts(config)


def tokenizer_of(config: PretrainConfig) -> PreTrainedTokenizerBase:
    """The built-in one, or the one that ``architecture.tokenizer`` names.

    Raises:
        ConfigError: there is none.
    """
    name = config.architecture.tokenizer
    if name is None:
        return make_tokenizer(config.architecture.max_positions)
    try:
        return load_tokenizer(ModelConfig(tokenizer=name))
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.tokenizer", "architecture.tokenizer")) from None
