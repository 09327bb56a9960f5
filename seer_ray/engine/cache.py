"""The paged cache: K, V and block summaries of every layer, and the page tables."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import torch

from seer_ray.engine.groups import PageGroup
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.states import StateSlots
from seer_ray.kernels.quantise import KV, TOP, Quantised, tensors, vector_bytes
from seer_ray.kernels.upload import upload
from seer_ray.kernels.zeros import zeros
from seer_ray.models.patch import AttentionShape
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.selectors.base import Selector


class PagedCache:
    """Page = block. The layers of a group share one numbering of pages; page 0 is a dummy for padding rows.

    Attributes:
        groups: see ``groups``.
        group_of: that of each layer, by number; None: the layer has no attention.
        kv: per layer ``[pages, kv_heads, 2, block, head_dim]``; K and V of a page and head lie together. In
            8 bits, with a scale for each token and head. None: the layer has no attention.
        summary: per layer ``[pages, kv_heads, width]`` where the layer's selector keeps one, else None.
        prefill_keys: per layer with a prefill gate what that keeps, ``[pages, kv_heads, key_width]``.
        tables: of each group, physical pages per batch row, ``[max_batch, max_pages]``, int64. Pages that
            were given back are page 0.
        states: of layers that keep a state; None: there are none.
        max_pages: of a sequence.
        heads, head_dim: of K and V on this rank.
    """

    def __init__(
        self,
        shape: AttentionShape,
        groups: tuple[PageGroup, ...],
        selectors: list[Selector | None],
        pages: Seq[int],
        block: int,
        max_batch: int,
        max_pages: int,
        dtype: torch.dtype,
        device: torch.device,
        kv_dtype: torch.dtype | None = None,
        prefill_gates: Seq[PrefillGate | None] = (),
    ) -> None:
        """
        Args:
            pages: of each group, the dummy included.
            kv_dtype: of K and V where it is not the model's ``dtype``.
            prefill_gates: of each layer; empty: none has one.
        """
        self.block, self.max_pages, self.groups = block, max_pages, groups
        self.heads, self.head_dim = shape.kv_heads, shape.head_dim
        self.group_of = [
            next((g for g, group in enumerate(self.groups) if layer in group.layers), None)
            for layer in range(shape.layers)
        ]
        # Zeros, not empty: the CPU maps them lazily, and no stray NaN can ever be read.
        make = Quantised.zeros if kv_dtype in TOP else zeros
        rest = (shape.kv_heads, 2, block, shape.head_dim)
        self.kv: list[KV | None] = [
            None if g is None else make((pages[g], *rest), kv_dtype or dtype, device) for g in self.group_of
        ]
        self.summary = [
            zeros((pages[g], shape.kv_heads, s.summary_width), dtype, device)
            if s is not None and s.summary_width and g is not None
            else None
            for s, g in zip(selectors, self.group_of, strict=True)
        ]
        self.prefill_keys = [
            zeros((pages[g], shape.kv_heads, gate.key_width), dtype, device)
            if gate is not None and g is not None
            else None
            for gate, g in zip(prefill_gates or [None] * shape.layers, self.group_of, strict=True)
        ]
        self.tables = [
            torch.zeros(max_batch, max_pages, dtype=torch.int64, device=device) for _ in self.groups
        ]
        self.states = StateSlots(shape.states, max_batch, device) if shape.states else None
        self._rows: list[list[list[int]]] = [[[] for _ in range(max_batch)] for _ in self.groups]

    @staticmethod
    def page_bytes(
        group: PageGroup,
        shape: AttentionShape,
        selectors: list[Selector | None],
        block: int,
        dtype: torch.dtype,
        kv_dtype: torch.dtype,
        prefill_gates: Seq[PrefillGate | None] = (),
    ) -> int:
        """Memory of one page over all layers of a group."""
        kv = len(group.layers) * 2 * block * vector_bytes(kv_dtype, shape.head_dim)
        kept = [selectors[layer] for layer in group.layers]
        summaries = sum(s.summary_width for s in kept if s is not None) * dtype.itemsize
        gates = [prefill_gates[layer] for layer in group.layers] if prefill_gates else []
        summaries += sum(gate.key_width for gate in gates if gate is not None) * dtype.itemsize
        return shape.kv_heads * (kv + summaries)

    def readable(self, lengths: np.ndarray) -> np.ndarray:
        """KV tokens that a step of sequences of so many reads of each KV head at most, over all layers."""
        total = np.zeros_like(lengths)
        for group in self.groups:
            seen = lengths if group.window is None else np.minimum(lengths, group.window)
            total += len(group.layers) * seen
        return total

    def copy_pages(self, copies: list[tuple[int, int, int]]) -> None:
        """Copy on write: (group, from, to), in order. Copies are of open pages: they have no summaries."""
        for group, source, target in copies:
            for layer in self.groups[group].layers:
                kv = self.kv[layer]
                assert kv is not None
                for part in tensors(kv):
                    if part is not None:
                        part[target] = part[source]

    def place(self, sequences: Seq[Sequence]) -> None:
        """Bring the sequences' rows of the page tables up to date."""
        moved = [sequence for sequence in sequences if not sequence.placed]
        for group, (table, rows) in enumerate(zip(self.tables, self._rows, strict=True)):
            changes: list[tuple[int, int, int]] = []
            for sequence in moved:
                row, pages = rows[sequence.slot], sequence.pages[group]
                for index, page in enumerate(pages):
                    if index >= len(row) or row[index] != page:
                        changes.append((sequence.slot, index, page))
                rows[sequence.slot] = list(pages)
            if changes:
                slots, columns, values = upload(changes, table.device).unbind(1)
                table[slots, columns] = values
        for sequence in moved:
            sequence.placed = True
