"""The prefill gates of an engine: which layers have one, does a density suit, what have prompts read."""

from __future__ import annotations

import torch

from seer_ray.config.errors import ConfigError
from seer_ray.engine.passes import Decoder, Part, PrefillPass
from seer_ray.engine.scheduler import Chunk
from seer_ray.engine.sparse_prefill import causal_pairs, sparse_rows
from seer_ray.kernels.blocks import share_of
from seer_ray.models.load import LoadedModel
from seer_ray.models.plan import LayerPlan
from seer_ray.models.prefill_gate import PrefillGate


def prompt_gates(loaded: LoadedModel, plan: LayerPlan, block: int) -> tuple[PrefillGate | None, ...]:
    """Of each layer, where the plan has prompts read sparsely; empty: it does not.

    Raises:
        ConfigError: the model has none, for these pages, in these layers.
    """
    if plan.prefill is None:
        return ()
    gates = loaded.load_prefill_gates(block)
    chosen = tuple(None if layer < plan.prefill.first else gate for layer, gate in enumerate(gates))
    if not any(gate is not None for gate in chosen):
        raise ConfigError(
            f"selector.dense_layers={plan.prefill.first}: no later layer has a gate in model.prefill_gates="
            f"{loaded.prefill_gates}, so selector.prefill would change nothing"
        )
    for layer, gate in enumerate(chosen):
        if gate is not None and plan.prefill.heads:
            own, heads = plan.prefill.amounts.get(layer), gate.num_query_heads * loaded.group.size
            if own is None or len(own.heads) != heads:
                has = f"no layer {layer}" if own is None else f"{len(own.heads)} query heads, not {heads}"
                raise ConfigError(
                    f"selector.prefill.allocation: that of another model, it has {has}; set it to uniform"
                )
    return chosen


def part_of(chunk: Chunk, plan: LayerPlan) -> Part:
    """A chunk as its pass sees it."""
    sequence = chunk.sequence
    rows = sparse_rows(plan.prefill, sequence.prompt_length, sequence.request.document, plan.block_size)
    return Part(sequence.pages, chunk.start, chunk.end, sequence.slot, rows)


def check_density(plan: LayerPlan, length: int) -> None:
    """
    Raises:
        ConfigError: a density that is less than a block even of the longest prompt.
    """
    density = plan.prefill.amount.density if plan.prefill is not None else None
    blocks = length // plan.block_size
    if density is not None and share_of(density) * blocks < 1:
        least = 1 - (1 - 1 / max(1, blocks)) ** 2
        raise ConfigError(
            f"selector.prefill.density={density:g}: keeps no block of the longest prompt there may be, "
            f"{length} tokens or {blocks} blocks; set {least:.2g} or more"
        )


class PromptReads:
    """What prompts have read, counted from the selections: pairs of a token and a key, over query heads, in
    the layers with a prefill gate, on this rank.

    Attributes:
        available: what dense attention would have read there.
    """

    def __init__(self, decoder: Decoder, q_heads: int) -> None:
        """``q_heads``: of this rank."""
        self._layers = sum(gate is not None for gate in decoder.prefill_gates)
        self._q_heads, self._group = q_heads, decoder.group
        self.forget()

    def forget(self) -> None:
        """Begins at 0."""
        self.available = self._dense = 0
        self._sparse: torch.Tensor | None = None

    @property
    def attended(self) -> int:
        """Waits for the device."""
        return self._dense + (0 if self._sparse is None else int(self._sparse))

    def count(self, step: PrefillPass) -> None:
        """A pass that has been launched."""
        if not self._layers:
            return
        pairs = self._q_heads * causal_pairs(step.spans)
        self.available += self._layers * pairs
        self._dense += (self._layers - len(step.read)) * pairs
        if step.read:
            read = torch.stack(step.read).sum()
            self._sparse = read if self._sparse is None else self._sparse + read
