"""Decode steps over buffers at fixed addresses: CUDA graphs on a GPU, recordings on a CPU.

A step is embedding, layers, ``lm_head`` and sampling. What the host knows of a step (tokens, positions, rows
of the page table, sampling) is copied into the buffers; the step itself asks nothing of the host, takes
memory from the graph's own pool alone and has shapes of the configuration, so it can be captured once and
replayed. What comes out (tokens, KV tokens read) is copied to the host together.

On a GPU there is a graph of whole steps for each of a few sizes of batch. On a CPU a recording costs no more
than a step: there is one for each number of rows, for page tables of powers of two, and with and without
pages to fill, of the layers alone, since what comes after them has little Python and large tensors.

The sampled tokens stay on the device too. A step that is launched before the host has read the last one takes
them from there; the copies from the host come from memory of their own for each step, so that the host may
fill those of the next step while this one has not begun.

Not captured, but run by the ``Runner`` operation by operation: exact mode, steps of which a selection is
recorded, mixtures of experts (they ask the host how many tokens go to each expert), the oracle (it reads
all keys of all rows), and on a CPU tensor parallelism and whatever is not compiled. Hooks of modules run when
a step is captured, not when it is run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from seer_ray.config.options import EngineConfig
from seer_ray.engine.flight import Flight, Mark, Readback, Row
from seer_ray.engine.passes import DecodePass, Decoder
from seer_ray.engine.recording import record
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
from seer_ray.kernels import compiled
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
RECORDINGS = 8
"""That are kept on a CPU, of the forms used last: each keeps what its layers compute."""


class Form(NamedTuple):
    """What is the same in all steps of a graph."""

    rows: int
    pages: int
    """Of the page table's rows, those that are looked at."""
    fills: bool
    """Whether it summarises pages that are full."""
    needs: Needs | None
    """Of the sampling, where that is part of it."""


def buckets(max_batch: int) -> list[int]:
    """Batch sizes for which there is a graph: 1, 2, 4, 8, 16, then in steps of 8."""
    sizes = [size for size in (1, 2, 4, 8, *range(16, max_batch, 8)) if size < max_batch]
    return [*sizes, max_batch]


def make_graphs(loaded: LoadedModel, decoder: Decoder, settings: EngineConfig) -> DecodeGraphs | None:
    """None where decoding runs operation by operation."""
    if settings.exact or not capturable(loaded, decoder):
        return None
    if loaded.device.type == "cuda":
        return DecodeGraphs(loaded, decoder, settings.max_batch, CudaCapture())
    if loaded.group.size > 1 or compiled.binary() is None:
        return None
    return DecodeGraphs(loaded, decoder, settings.max_batch, record, RECORDINGS)


def capturable(loaded: LoadedModel, decoder: Decoder) -> bool:
    """Whether the model's step asks nothing of the host."""
    slow = any(traits.reads_all_keys for traits in decoder.plan.selectors)
    return not slow and not is_mixture(loaded.model.config)


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
        decoder: cache, plan and selectors.
        max_batch: most sequences of a step.
        capture: ``CudaCapture()`` or ``record``; what returns what it is given runs the same step uncaptured.
        recordings: on a CPU, how many are kept; None: graphs of whole steps, for few sizes, are all kept.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        decoder: Decoder,
        max_batch: int,
        capture: Capture,
        recordings: int | None = None,
    ) -> None:
        self.loaded, self.decoder, self.capture, self.recordings = loaded, decoder, capture, recordings
        self.buckets = buckets(max_batch)
        self.vocabulary: int = loaded.model.config.vocab_size
        self.usable = True
        """False once a capture has failed."""
        self._graphs: dict[Form, Step] = {}
        """The one used last comes last."""
        # A graph knows where the weights lie, whatever becomes of the modules.
        self._weights = [weight.data for weight in loaded.model.parameters()]
        self._weights += [weight for s in decoder.selectors if s is not None for weight in s.weights]
        device, layers = loaded.device, len(decoder.plan.layers)
        self._integers = torch.zeros(5, max_batch, dtype=torch.int64, device=device)
        self._floats = torch.zeros(4, max_batch, dtype=torch.float32, device=device)
        self._out = torch.zeros(max_batch, 2 + layers, dtype=torch.int64, device=device)
        hidden: int = loaded.model.config.hidden_size
        self._hidden = torch.zeros(max_batch, hidden, dtype=loaded.dtype, device=device)
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
        form, began = self._form(sequences, needs), Mark(device)
        if needs.penalty:
            self._mark(sequences)
        self._fill(sequences, form.rows)
        self._run(form, needs)
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

    def _form(self, sequences: list[Sequence], needs: Needs) -> Form:
        cache, count = self.decoder.cache, len(sequences)
        width: int = cache.table.shape[1]
        if self.recordings is None:
            return Form(next(size for size in self.buckets if size >= count), width, True, needs)
        last = max(sequence.cached for sequence in sequences) // cache.block
        fills = any((sequence.cached + 1) % cache.block == 0 for sequence in sequences)
        return Form(count, min(width, 1 << last.bit_length()), fills, None)

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

    def _run(self, form: Form, needs: Needs) -> None:
        whole = self.recordings is None
        step = partial(self._step, form, needs) if whole else partial(self._layers, form)
        graph = self._graphs.pop(form, None)
        if graph is None:
            try:
                graph = self.capture(step)
            except RuntimeError as error:
                self.usable = False
                self._graphs.clear()
                reason = str(error).strip().splitlines()[0]
                log.warning("decoding uncaptured, slower: capture of %d rows failed: %s", form.rows, reason)
                self._step(form, needs)
                return
            if self.recordings is not None and len(self._graphs) >= self.recordings:
                del self._graphs[next(iter(self._graphs))]
        self._graphs[form] = graph
        graph()
        if not whole:
            self._sample(form.rows, needs)

    def _step(self, form: Form, needs: Needs) -> None:
        self._layers(form)
        self._sample(form.rows, needs)

    def _given_to(self, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, positions and rows of the page table."""
        ids, positions, slots = self._integers[:TOP_K, :rows].unbind()
        return torch.where(ids == UNREAD, self._given[slots], ids), positions, slots

    def _layers(self, form: Form) -> None:
        ids, positions, slots = self._given_to(form.rows)
        table = self.decoder.cache.table[:, : form.pages]
        live = (slots >= 0).unsqueeze(1)
        table = torch.where(live, table[slots.clamp(min=0)], 0)
        step = DecodePass(self.decoder, table, positions, None if form.fills else [])
        self._hidden[: form.rows] = forward_tokens(self.loaded.model, ids, step)
        self._out[: form.rows, 2:] = step.tokens_read()

    def _sample(self, rows: int, needs: Needs) -> None:
        model: Any = self.loaded.model
        ids, _, slots = self._given_to(rows)
        (logits,) = project(self._hidden[:rows], model.lm_head)
        logits, settings = logits.float(), self._settings(rows)
        if needs.penalty:
            assert self._seen is not None
            self._seen[slots, ids] = torch.ones_like(ids, dtype=torch.bool)
            logits = penalise(logits, settings, self._seen[slots])
        tokens, short = choose(logits, settings, needs)
        if needs.ranked:
            self._logits[:rows] = logits
        self._sampled[slots] = tokens
        self._out[:rows, 0], self._out[:rows, 1] = tokens, short


def _staging(buffer: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Zeros on the host to be copied into a buffer; nobody else gets them before the copy is done."""
    host = torch.zeros(buffer.shape, dtype=buffer.dtype, pin_memory=buffer.is_cuda)
    return host, host.numpy()
