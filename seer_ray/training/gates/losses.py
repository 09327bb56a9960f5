"""Gates for a frozen model: distilled from its attention, trained by its next-token loss, or both.

SeerAttention-R (arXiv 2506.08889). The model never gets a gradient; its forward pass goes through one layer
after the other, and each layer's gate learns from it before the next layer begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seer_ray.config.training import ObjectiveConfig
from seer_ray.corpora.pack import EVERY_ROW, Pack, Share, first_row
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import attention_shape, patch_attention, rope_tables
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.rope import RopeTable
from seer_ray.training.gates.blocks import first_block, imitate_blocks
from seer_ray.training.gates.imitation import imitate
from seer_ray.training.gates.soft_gate import SoftGates, next_token_loss
from seer_ray.training.gates.teacher import Teacher, teach

Lesson = tuple[Pack, int, Tensor, Tensor, list[Tensor]]
"""Pack, layer, and what ``teacher.Lesson`` is told of them."""


class GateTraining:
    """Losses of the gates of a model, with their gradients.

    Args:
        model: a causal language model, frozen; its attention is patched (idempotent).
        gates: one per layer, None where there is none; all for decoding, or all for prompts.
        layers: those that are trained; each must have a gate.
        config: the objective.
    """

    def __init__(
        self,
        model: Any,
        gates: Sequence[AttnGate | PrefillGate | None],
        layers: Sequence[int],
        config: ObjectiveConfig,
    ) -> None:
        patch_attention(model)
        model.requires_grad_(False)
        self.model, self.gates, self.config = model, gates, config
        self.device = next(model.parameters()).device
        self.shape = attention_shape(model)
        self._ropes: list[RopeTable] = []
        trained = {}
        for layer in layers:
            gate = gates[layer]
            assert gate is not None
            trained[str(layer)] = gate.requires_grad_(True).to(self.device)
        self.trained: dict[int, AttnGate | PrefillGate] = {int(name): gate for name, gate in trained.items()}
        self.prompts = isinstance(next(iter(trained.values())), PrefillGate)
        """They are prefill gates."""
        self.module = nn.ModuleDict(trained)
        self.block = next(iter(self.trained.values())).block_size
        self._kept: tuple[int, list[Lesson]] | None = None

    def loss(self, packs: Sequence[Pack], share: Share = EVERY_ROW) -> tuple[Tensor, dict[str, float]]:
        """Mean of the objective over the rows that count; its gradient is added to the gates' weights.

        Args:
            packs: a batch.
            share: the rows that count. Where it is not all of them, the model runs once for all shares of a
                batch, and what it said of its layers is kept until the next batch.

        Returns:
            The loss, without a graph, and its parts: ``distill`` (summed over layers, nats a row) and
            ``kl/layer_N``, ``lm`` (nats a token), ``tokens`` (of a batch, with its first share).
        """
        packs = [Pack(pack.tokens.to(self.device), pack.bounds) for pack in packs]
        values: dict[str, float] = {}
        loss = 0.0
        if self.config.distill:
            values |= self.distill(packs, self.config.distill, share)
            loss += self.config.distill * values["distill"]
        if self.config.lm:
            values["lm"] = self._language(packs, self.config.lm)
            loss += self.config.lm * values["lm"]
        values["tokens"] = 0.0 if share.part else float(sum(len(pack.tokens) for pack in packs))
        return torch.tensor(loss), values

    def distill(
        self, packs: Sequence[Pack], weight: float | None = None, share: Share = EVERY_ROW
    ) -> dict[str, float]:
        """KL by layer and summed over layers, mean over rows; with a weight, its gradient too."""
        rows = self.rows(packs, share)
        of_sum = None if weight is None else weight / rows
        sums = dict.fromkeys(self.trained, 0.0)

        def learn(pack: Pack, layer: int, q: Tensor, k: Tensor, targets: list[Tensor]) -> None:
            skip, gate = self.config.skip, self.trained[layer]
            told = (pack, q, k, targets, skip, of_sum, share)
            if isinstance(gate, PrefillGate):
                sums[layer] += imitate_blocks(gate, *told, self.config.loss)
            else:
                sums[layer] += imitate(gate, *told)

        if share.parts == 1:
            self._teach(packs, learn)
        else:
            for lesson in self._lessons(packs, share.batch):
                learn(*lesson)
        means = {f"kl/layer_{layer:02d}": total / rows for layer, total in sums.items()}
        return {"distill": sum(means.values()), **means}

    def _teach(self, packs: Sequence[Pack], learn: Callable[..., None]) -> None:
        """Run the model; ``learn`` is told a ``Lesson`` of each layer before the next one begins."""
        kind: Any = self.config.target
        for pack in packs:
            lesson, ropes = partial(learn, pack), self.ropes(pack)
            about = pack, self.shape, ropes, self.trained, self.block, self.config.skip
            teacher = Teacher(*about, kind, self.prompts, lesson)
            teach(self.model, pack, teacher)

    def _lessons(self, packs: Sequence[Pack], batch: int) -> list[Lesson]:
        """Of all packs and layers of a batch; the model runs if they are not the last ones."""
        if self._kept is None or self._kept[0] != batch:
            self._kept = None  # frees the last batch first
            lessons: list[Lesson] = []
            self._teach(packs, lambda *lesson: lessons.append(lesson))
            self._kept = batch, lessons
        return self._kept[1]

    def ropes(self, pack: Pack) -> list[RopeTable]:
        """Of each layer, for the documents of a pack."""
        longest = max(pack.lengths)
        if not self._ropes or self._ropes[0].positions < longest:
            self._ropes = rope_tables(self.model, longest)
        return self._ropes

    def rows(self, packs: Sequence[Pack], share: Share = EVERY_ROW) -> int:
        """Rows that count, at least 1."""
        lengths = [length for pack in packs for length in pack.lengths]
        if self.prompts:  # blocks of rows
            skip, block = self.config.skip, self.block
            ranges = [range(first_block(n, block, skip), -(-n // block)) for n in lengths]
            return max(1, sum(len(share.of(rows)) for rows in ranges))
        firsts = [first_row(length, self.block, self.config.skip) for length in lengths]
        return max(1, sum(len(share.of(range(*ends))) for ends in zip(firsts, lengths, strict=True)))

    def _language(self, packs: Sequence[Pack], weight: float) -> float:
        gates = {layer: gate for layer, gate in self.trained.items() if isinstance(gate, AttnGate)}
        soft = SoftGates(gates, self.shape, self.block, self.config.skip)
        count = max(1, sum(soft.targets(pack) for pack in packs))
        total = 0.0
        for pack in packs:
            loss = next_token_loss(self.model, pack, soft, self.ropes(pack)) / count
            if loss.requires_grad:
                (weight * loss).backward()
            total += loss.item()
        return total
