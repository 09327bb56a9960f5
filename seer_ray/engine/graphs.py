"""Decode steps over buffers at fixed addresses: on a GPU one CUDA graph for each size of batch.

A step is embedding, layers, ``lm_head`` and sampling. What the host knows of a step (tokens, positions, rows
of the page table, sampling) is copied into the buffers; the step itself asks nothing of the host, takes
memory from the graph's own pool alone and has shapes of the configuration, so it can be captured once and
replayed. What comes out (tokens, KV tokens read) is copied to the host together.

The sampled tokens stay on the device too. A step that is launched before the host has read the last one takes
them from there; the copies from the host come from memory of their own for each step, so that the host may
fill those of the next step while this one has not begun.

Not captured, but run by the ``Runner`` operation by operation: exact mode, steps of which a selection is
recorded, mixtures of experts (they ask the host how many tokens go to each expert) and the oracle (it reads
all keys of all rows).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from seer_ray.config import EngineConfig
from seer_ray.engine.attention import Attention, DecodePass
from seer_ray.engine.flight import Flight, Mark, Readback, Row
from seer_ray.engine.sampler import (
    NEUTRAL,
    Needs,
    Settings,
    choose,
    complete,
    may_fall_short,
    penalise,
    settings_of,
)
from seer_ray.engine.sequence import Sequence
from seer_ray.kernels.upload import upload
from seer_ray.models.architecture import is_mixture
from seer_ray.models.linear import project
from seer_ray.models.load import LoadedModel
from seer_ray.models.patch import forward_tokens

log = logging.getLogger(__name__)

Step = Callable[[], None]
Capture = Callable[[Step], Step]
"""From a step to what runs it again."""

SLOTS, TOP_K = 2, 3
"""Of the buffer of whole numbers: tokens, positions and rows of the page table; top-k and keys."""
UNREAD = -1
"""In place of a token that the host has not read."""
EAGER_MIXERS = ("oracle",)


def buckets(max_batch: int) -> list[int]:
    """Batch sizes for which there is a graph: 1, 2, 4, 8, 16, then in steps of 8."""
    sizes = [size for size in (1, 2, 4, 8, *range(16, max_batch, 8)) if size < max_batch]
    return [*sizes, max_batch]


def make_graphs(loaded: LoadedModel, attention: Attention, settings: EngineConfig) -> DecodeGraphs | None:
    """None where decoding runs operation by operation."""
    if loaded.device.type != "cuda" or settings.exact or not capturable(loaded, attention):
        return None
    return DecodeGraphs(loaded, attention, settings.max_batch, CudaCapture())


def capturable(loaded: LoadedModel, attention: Attention) -> bool:
    """Whether the model's step asks nothing of the host."""
    eager = any(attention.plan.uses(mixer) for mixer in EAGER_MIXERS)
    return not eager and not is_mixture(loaded.model.config)


class CudaCapture:
    """Captures into one memory pool for all graphs, of which only one runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Step) -> Step:
        # A step may be run again: it writes the same to the same places.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles kernels, and makes the libraries' workspaces
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads of a worker may go on with what they do.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        self._pool = self._pool or graph.pool()
        return graph.replay


class DecodeGraphs:
    """The decode step of up to ``max_batch`` sequences, in graphs that are captured when first needed.

    Args:
        loaded: model; patched.
        attention: cache, plan and selectors.
        max_batch: most sequences of a step.
        capture: ``CudaCapture()``; anything that returns what it is given runs the same step uncaptured.
    """

    def __init__(self, loaded: LoadedModel, attention: Attention, max_batch: int, capture: Capture) -> None:
        self.loaded, self.attention, self.capture = loaded, attention, capture
        self.buckets = buckets(max_batch)
        self.vocabulary: int = loaded.model.config.vocab_size
        self.usable = True
        """False once a capture has failed."""
        self._graphs: dict[tuple[int, Needs], Step] = {}
        device, layers = loaded.device, len(attention.plan.layers)
        self._integers = torch.zeros(5, max_batch, dtype=torch.int64, device=device)
        self._floats = torch.zeros(4, max_batch, dtype=torch.float32, device=device)
        self._out = torch.zeros(max_batch, 2 + layers, dtype=torch.int64, device=device)
        self._logits = torch.zeros(max_batch, self.vocabulary, dtype=torch.float32, device=device)
        # Tokens by row of the page table, the last one padding's. Two buffers: a step reads those that the
        # last one sampled and writes the other, so that running it again gives the same.
        self._given, self._sampled = torch.zeros(2, max_batch + 1, dtype=torch.int64, device=device)
        self._seen: torch.Tensor | None = None
        self._seen_of: list[tuple[Sequence, int] | None] = [None] * max_batch

    def take(self, sequences: list[Sequence]) -> bool:
        """Whether ``launch`` is for this step."""
        return self.usable and not any(sequence.recorded and sequence.ready for sequence in sequences)

    def launch(self, sequences: list[Sequence], ahead: bool) -> Flight:
        """One step. The page table is up to date.

        Args:
            sequences: those of which a step is not read have their last token on the device.
            ahead: the next step may be launched before this one is read.
        """
        needs, count, device = Needs.of(sequences), len(sequences), self._out.device
        rows = next(size for size in self.buckets if size >= count)
        began = Mark(device)
        if needs.penalty:
            self._mark(sequences)
        self._fill(sequences, rows)
        self._run(rows, needs)
        self._given.copy_(self._sampled)
        logits, settings = self._logits[:count], self._settings(count)
        if ahead and any(may_fall_short(sequence, self.vocabulary) for sequence in sequences):
            logits, settings = logits.clone(), settings.copy()  # the next step has others there
        out = Readback(self._out[:count])

        def read() -> list[Row]:
            found = out.wait()
            late = found[:, 1].bool()
            if needs.ranked and late.any():
                tokens = found[:, 0].to(device)
                complete(tokens, late.nonzero().squeeze(1).to(device), logits, settings)
                found[:, 0] = tokens.cpu()
            return [Row(token, kv, bool(short)) for token, short, *kv in found.tolist()]

        return Flight(sequences, began, out.there, read)

    # -- what the host knows -------------------------------------------------------------------------

    def _fill(self, sequences: list[Sequence], rows: int) -> None:
        """Everything of this step in two copies. Padding stands at position 0 of no row (-1): page 0."""
        (integers_host, integers), (floats_host, floats) = map(_staging, (self._integers, self._floats))
        floats[:, len(sequences) : rows].T[:] = NEUTRAL
        integers[SLOTS, len(sequences) : rows] = -1
        for row, sequence in enumerate(sequences):
            floats[:, row], drawn = settings_of(sequence, self.vocabulary)
            at = sequence.cached
            token = sequence.tokens[at] if at < len(sequence.tokens) else UNREAD
            integers[:, row] = token, at, sequence.slot, *drawn
        self._integers.copy_(integers_host, non_blocking=True)
        self._floats.copy_(floats_host, non_blocking=True)

    def _mark(self, sequences: list[Sequence]) -> None:
        """Tokens seen, of sequences that are new in their rows; the step adds those that it is given."""
        if self._seen is None:
            size = len(self._seen_of) + 1, self.vocabulary  # the last row is padding's
            self._seen = torch.zeros(size, dtype=torch.bool, device=self._out.device)
        for sequence in sequences:
            if self._seen_of[sequence.slot] != (sequence, sequence.cached):
                self._seen[sequence.slot] = False
                self._seen[sequence.slot, upload(sequence.tokens, self._seen.device)] = True
            self._seen_of[sequence.slot] = sequence, sequence.cached + 1

    def _settings(self, rows: int) -> Settings:
        return Settings(*self._floats[:, :rows].unbind(), *self._integers[TOP_K:, :rows].unbind())

    # -- the step ------------------------------------------------------------------------------------

    def _run(self, rows: int, needs: Needs) -> None:
        if (rows, needs) not in self._graphs:
            try:
                self._graphs[rows, needs] = self.capture(lambda: self._step(rows, needs))
            except RuntimeError as error:
                self.usable = False
                self._graphs.clear()
                reason = str(error).strip().splitlines()[0]
                log.warning(
                    "decoding without CUDA graphs, slower: capture of %d rows failed: %s", rows, reason
                )
                self._step(rows, needs)
                return
        self._graphs[rows, needs]()

    def _step(self, rows: int, needs: Needs) -> None:
        model: Any = self.loaded.model
        ids, positions, slots = self._integers[:TOP_K, :rows].unbind()
        ids = torch.where(ids == UNREAD, self._given[slots], ids)
        table = self.attention.cache.table
        live = (slots >= 0).unsqueeze(1)
        table = torch.where(live, table[slots.clamp(min=0)], 0)
        step = DecodePass(self.attention, table, positions, None)
        (logits,) = project(forward_tokens(model, ids, step), model.lm_head)
        logits = logits.float()
        settings = self._settings(rows)
        if needs.penalty:
            assert self._seen is not None
            self._seen[slots, ids] = torch.ones_like(ids, dtype=torch.bool)
            logits = penalise(logits, settings, self._seen[slots])
        tokens, short = choose(logits, settings, needs)
        if needs.ranked:
            self._logits[:rows] = logits
        self._sampled[slots] = tokens
        out = self._out[:rows]
        out[:, 0], out[:, 1], out[:, 2:] = tokens, short, step.tokens_read()


def _staging(buffer: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Zeros on the host to be copied into a buffer; nobody else gets them before the copy is done."""
    host = torch.zeros(buffer.shape, dtype=buffer.dtype, pin_memory=buffer.is_cuda)
    return host, host.numpy()
