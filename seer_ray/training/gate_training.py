"""Gates for a frozen model: distilled from its attention, trained by its next-token loss, or both.

SeerAttention-R (arXiv 2506.08889). The model never gets a gradient; its forward pass goes through one layer
after the other, and each layer's gate learns from it before the next layer begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import patch_attention
from seer_ray.models.rope import RopeTable
from seer_ray.training.imitation import imitate
from seer_ray.training.options import ObjectiveConfig
from seer_ray.training.pack import Pack, first_row
from seer_ray.training.soft_gate import SoftGates, next_token_loss
from seer_ray.training.teacher import Teacher, teach


class GateTraining:
    """Losses of the gates of a model, with their gradients.

    Args:
        model: a causal language model, frozen; its attention is patched (idempotent).
        gates: one per layer, None where there is none.
        layers: those that are trained; each must have a gate.
        config: the objective.
    """

    def __init__(
        self,
        model: Any,
        gates: Sequence[AttnGate | None],
        layers: Sequence[int],
        config: ObjectiveConfig,
    ) -> None:
        patch_attention(model)
        model.requires_grad_(False)
        self.model, self.gates, self.config = model, gates, config
        self.device = next(model.parameters()).device
        self.rope = RopeTable.from_config(model.config, device=self.device)
        trained = {}
        for layer in layers:
            gate = gates[layer]
            assert gate is not None
            trained[str(layer)] = gate.requires_grad_(True).to(self.device)
        self.trained: dict[int, AttnGate] = {int(name): gate for name, gate in trained.items()}
        self.module = nn.ModuleDict(trained)
        self.block = next(iter(self.trained.values())).block_size

    def loss(self, packs: Sequence[Pack]) -> tuple[Tensor, dict[str, float]]:
        """Mean of the objective over the rows that count; its gradient is added to the gates' weights.

        Returns:
            The loss, without a graph, and its parts: ``distill`` (summed over layers, nats a row) and
            ``kl/layer_N``, ``lm`` (nats a token), ``tokens``.
        """
        packs = [Pack(pack.tokens.to(self.device), pack.bounds) for pack in packs]
        values: dict[str, float] = {}
        loss = 0.0
        if self.config.distill:
            values |= self.distill(packs, self.config.distill)
            loss += self.config.distill * values["distill"]
        if self.config.lm:
            values["lm"] = self._language(packs, self.config.lm)
            loss += self.config.lm * values["lm"]
        values["tokens"] = float(sum(len(pack.tokens) for pack in packs))
        return torch.tensor(loss), values

    def distill(self, packs: Sequence[Pack], weight: float | None = None) -> dict[str, float]:
        """KL by layer and summed over layers, mean over rows; with a weight, its gradient too."""
        rows = self.rows(packs)
        sums = dict.fromkeys(self.trained, 0.0)
        for pack in packs:

            def lesson(layer: int, q: Tensor, k: Tensor, targets: list[Tensor], pack: Pack = pack) -> None:
                of_sum = None if weight is None else weight / rows
                gate = self.trained[layer]
                sums[layer] += imitate(gate, pack, q, k, targets, self.config.skip, of_sum)

            kind: Any = self.config.target
            teacher = Teacher(pack, self.rope, self.trained, self.block, self.config.skip, kind, lesson)
            teach(self.model, pack, teacher)
        means = {f"kl/layer_{layer:02d}": total / rows for layer, total in sums.items()}
        return {"distill": sum(means.values()), **means}

    def rows(self, packs: Sequence[Pack]) -> int:
        """Rows that count, at least 1."""
        lengths = [d.stop - d.start for pack in packs for d in pack.documents()]
        return max(1, sum(n - first_row(n, self.block, self.config.skip) for n in lengths))

    def _language(self, packs: Sequence[Pack], weight: float) -> float:
        soft = SoftGates(self.trained, self.rope, self.block, self.config.skip)
        count = max(1, sum(soft.targets(pack) for pack in packs))
        total = 0.0
        for pack in packs:
            loss = next_token_loss(self.model, pack, soft) / count
            if loss.requires_grad:
                (weight * loss).backward()
            total += loss.item()
        return total
