"""Next-token training of a small model on the built-in problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from seer_ray.config import ConfigError
from seer_ray.models.load import resolve_device
from seer_ray.models.patch import forward_tokens, patch_attention
from seer_ray.models.rope import RopeTable
from seer_ray.training.answers import answer_accuracy
from seer_ray.training.card import write_card
from seer_ray.training.curriculum import check_curriculum
from seer_ray.training.mixers import PackedStep, mixers_of
from seer_ray.training.options import PretrainConfig
from seer_ray.training.problems import NO_TARGET, Batch, held_out, pack, training_batch
from seer_ray.training.small_model import check_sizes, make_model
from seer_ray.training.tokenizer import make_tokenizer

EVAL_TOKENS = 16384
"""Of held-out problems in one forward pass."""


class Pretraining:
    """A ``seer_ray.training.loop.Objective``: cross entropy of the solution's tokens.

    Args:
        config: all options of the job.
        device: where to train; None: a GPU where there is one.

    Raises:
        ConfigError: sizes, mixers or lengths that do not go together.
    """

    def __init__(self, config: PretrainConfig, device: str = "auto") -> None:
        self.config = config
        check_pretraining(config)
        self.tokenizer = make_tokenizer(config.architecture.max_positions)
        self.device = resolve_device(device)
        self.module = make_model(config.architecture, self.tokenizer, config.train.seed).to(self.device)
        patch_attention(self.module)
        self.module.train()
        self.rope = RopeTable.from_config(
            self.module.config, config.architecture.max_positions, device=self.device
        )
        self.mixers = mixers_of(self.module.config)

    def batch(self, step: int, rank: int, world: int) -> Batch:
        return training_batch(step, rank, world, self.config.data, self.config.train, self.tokenizer)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits, targets = self._predict(batch)
        loss = cross_entropy(logits, targets)
        right = (logits.detach().argmax(-1) == targets).float().mean()
        return loss, {
            "tokens": float(len(batch.tokens)),
            "token_accuracy": right.item(),
            "problem_steps": float(batch.steps),
        }

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """fp32 logits ``[targets, vocabulary]`` where there is a target, and the targets ``[targets]``."""
        step = PackedStep(batch.documents, self.rope, self.mixers)
        hidden = forward_tokens(self.module, batch.tokens.to(self.device), step)
        chosen = (batch.targets != NO_TARGET).nonzero().squeeze(1)
        logits = self.module.lm_head(hidden[chosen.to(self.device)])
        return logits.float(), batch.targets[chosen].to(self.device)

    def evaluate(self) -> dict[str, float]:
        """For each length: loss and accuracy of the next token, and the share of problems solved, that is
        with every token right, which is when greedy decoding writes the very solution."""
        found: dict[str, float] = {}
        for steps in self.config.evaluation.lengths:
            problems = held_out(self.config.data, steps, self.config.evaluation.problems)
            size = len(pack(problems[:1], self.tokenizer).tokens)
            if size > self.config.architecture.max_positions:
                continue
            losses, right, solved = 0.0, 0, 0
            count, at_once = 0, max(1, EVAL_TOKENS // size)
            for first in range(0, len(problems), at_once):
                batch = pack(problems[first : first + at_once], self.tokenizer)
                logits, targets = self._predict(batch)
                hit = (logits.argmax(-1) == targets).cpu()
                per_problem = hit.split(_targets_per_document(batch))
                losses += cross_entropy(logits, targets, reduction="sum").item()
                right += int(hit.sum())
                count += len(hit)
                solved += sum(bool(part.all()) for part in per_problem)
            found |= {
                f"{steps}_steps/loss": losses / count,
                f"{steps}_steps/token_accuracy": right / count,
                f"{steps}_steps/solved": solved / len(problems),
            }
        return found

    def save(self, folder: Path, report: dict[str, Any]) -> dict[str, float]:
        """An ordinary model folder; then answers by the engine, and a card that tells all this."""
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        answers = answer_accuracy(folder, self.config)
        report["metrics"] |= answers
        write_card(folder, self.config, report, self.module)
        return answers


def check_pretraining(config: PretrainConfig) -> None:
    """Whether sizes, mixers and lengths go together; makes no model.

    Raises:
        ConfigError: they do not.
    """
    check_curriculum(config.data)
    check_sizes(config.architecture)
    tokenizer = make_tokenizer(config.architecture.max_positions)
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


def _targets_per_document(batch: Batch) -> list[int]:
    wanted = (batch.targets != NO_TARGET).long()
    return [int(part.sum()) for part in wanted.split(batch.documents.lengths)]
