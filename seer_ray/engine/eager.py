"""Decode steps run operation by operation: in exact mode, for selectors that read all keys, and where nothing
is compiled or captured."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager

import numpy as np
import torch

from seer_ray.engine.flight import Flight, Made, Mark
from seer_ray.engine.guide import prepare
from seer_ray.engine.logprobs import Logprobs
from seer_ray.engine.needs import Needs
from seer_ray.engine.passes import DecodePass, Decoder
from seer_ray.engine.sampler import sample
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.watch import Selections, Watch
from seer_ray.models.architecture import is_mixture
from seer_ray.models.load import LoadedModel
from seer_ray.models.patch import forward_tokens, logits_of

EXACT_ROWS = 16
"""Rows of a decode pass in exact mode."""


class EagerSteps:
    """The decode steps of a model, in either mode.

    Args:
        loaded: model; patched.
        decoder: cache, plan and selectors.
        exact: groups of one size, so that every product has the same shape at any ``max_batch``; else a step
            costs the rows that are in it.
    """

    def __init__(self, loaded: LoadedModel, decoder: Decoder, exact: bool) -> None:
        self.loaded, self.decoder, self.exact = loaded, decoder, exact
        # The tokens that go to one expert are a product of their own, whose shape depends on the mates.
        self.rows = 1 if is_mixture(loaded.model.config) else EXACT_ROWS
        """Of a group, in exact mode."""

    def launch(self, sequences: list[Sequence], needs: Needs | None = None) -> Flight:
        """One step. The page table is up to date.

        Args:
            sequences: its rows.
            needs: what is asked of it, where that is not all that they ask.
        """
        device = self.loaded.device
        needs, began, passes = needs or Needs.of(sequences), Mark(device), 0
        made: dict[int, tuple[int, np.ndarray, bytes]] = {}
        with self.threads():
            for rows in self._groups(sequences):
                found = self._decode(rows, needs)
                made |= found
                passes += bool(found)
        nothing = 0, np.zeros(len(self.decoder.plan.layers), np.int64), b""
        tokens, read, said = zip(*(made.get(s.slot, nothing) for s in sequences), strict=True)
        results = Made(
            list(tokens),
            np.stack(read),
            {row: spelled for row, spelled in enumerate(said) if spelled},
            replayed=frozenset(row for row, sequence in enumerate(sequences) if sequence.slot not in made),
        )
        return Flight(sequences, began, Mark(device), lambda: results, passes)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """In exact mode one CPU thread: how work is cut among threads changes the last bits of a row, by the
        row's place in the batch and by the number of threads. That is of torch's products: the compiled ones,
        which all but many rows of bfloat16 are, give a row the same bits in either mode."""
        if not self.exact or self.loaded.device.type != "cpu":
            yield
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def place(
        self, slots: Seq[int], positions: Seq[int], padding: Seq[bool]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Page tables of a pass's rows, by group, and the slots of their states."""
        cache, device = self.decoder.cache, self.loaded.device
        chosen, empty = torch.tensor(slots, device=device), torch.tensor(padding, device=device)
        tables = [table[chosen] for table in cache.tables]
        if self.exact:
            tables = [table.masked_fill(empty.unsqueeze(1), 0) for table in tables]
        else:
            tables = [table[:, : max(positions) // cache.block + 1] for table in tables]
        if cache.states is not None:
            chosen = chosen.masked_fill(empty, cache.states.nobody)
        return tables, chosen

    def _decode(self, rows: Seq[Sequence | None], needs: Needs) -> dict[int, tuple[int, np.ndarray, bytes]]:
        """One pass over batch rows, of which None is padding: what those that are ready give, by slot: token,
        KV tokens read by layer, log-probabilities."""
        device, block, layers = self.loaded.device, self.decoder.cache.block, self.decoder.plan.layers
        positions = [row.cached if row is not None else 0 for row in rows]
        slots = [row.slot if row is not None else 0 for row in rows]
        tables, states = self.place(slots, positions, [row is None for row in rows])
        completed = [
            (row.pages[0][row.cached // block], row.cached // block * block)
            for row in rows
            if row is not None and row.pages and (row.cached + 1) % block == 0
        ]
        watched = [
            (index, row)
            for index, row in enumerate(rows)
            if needs.recorded and row is not None and row.recorded and row.ready
        ]
        selections = Selections() if watched else None
        step = DecodePass(self.decoder, tables, positions, completed, selections, states)
        ids = [row.tokens[row.cached] if row is not None else 0 for row in rows]
        ready = [(index, row) for index, row in enumerate(rows) if row is not None and row.ready]
        asked = Needs.of(row for _, row in ready)
        if asked.guided:
            prepare(row.guide for _, row in ready)
        hidden = forward_tokens(self.loaded.model, torch.tensor(ids, device=device), step)
        if not ready:
            return {}
        logits = logits_of(self.loaded.model, hidden)
        logits = logits[torch.tensor([index for index, _ in ready], device=device)]
        sampled = sample(logits, [row for _, row in ready])
        said: dict[int, bytes] = {}
        if asked.logprobs and needs.logprobs:
            scores = Logprobs(logits.float(), [row for _, row in ready])
            coming = [row.coming(token) for (_, row), token in zip(ready, sampled, strict=True)]
            said = scores.spell(scores.of(torch.tensor(coming, device=device)).cpu())
        read = step.tokens_read().cpu().numpy()
        if selections is not None:
            watch = Watch(selections, watched, block, len(layers), self.loaded.group)
            for index, attended in watch.attended().items():
                of_row = rows[index]
                assert of_row is not None
                of_row.record(attended)
        return {
            row.slot: (token, read[index], said.get(place, b""))
            for place, ((index, row), token) in enumerate(zip(ready, sampled, strict=True))
        }

    def _groups(self, sequences: list[Sequence]) -> list[Seq[Sequence | None]]:
        """Batch rows of each pass; in exact mode each sequence in its own row."""
        if not self.exact:
            return [sequences]
        by_slot = {sequence.slot: sequence for sequence in sequences}
        size = self.rows
        firsts = sorted({slot // size * size for slot in by_slot})
        return [[by_slot.get(slot) for slot in range(first, first + size)] for first in firsts]
