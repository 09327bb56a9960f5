"""Decode steps over buffers at fixed addresses, so that a step can be captured once and run again.

A step is embedding, layers, ``lm_head`` and sampling. What the host knows of a step (tokens, positions, rows
of the page table, sampling) is copied into the buffers; the step itself asks nothing of the host. What comes
out (tokens, KV tokens read) is copied to the host together. How much of a step is captured, by what and for
which steps is a subclass's: CUDA graphs (``graphs``) or tapes on a CPU (``tapes``).

The sampled tokens stay on the device too. A step that is launched before the host has read the last one takes
them from there; the copies from the host come from memory of their own for each step, so that the host may
fill those of the next step while this one has not begun.

Steps of which a selection is recorded have captures of their own, which keep what every layer selected. Not
captured, but run by the ``Runner`` operation by operation: exact mode, selectors that read all keys, and on a
CPU tensor parallelism and whatever is not compiled. Hooks of modules run when a step is captured, not when it
is run again.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch

from seer_ray.engine.flight import Flight, Made, Mark, Readback
from seer_ray.engine.guide import prepare
from seer_ray.engine.logprobs import Logprobs
from seer_ray.engine.needs import Needs
from seer_ray.engine.passes import DecodePass, Decoder
from seer_ray.engine.sampler import NEUTRAL, Parameters, penalise
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.shaping import TokenCounts, counted_of, shape
from seer_ray.engine.watch import Selections, Watch
from seer_ray.kernels.draw import SamplingTensors, draw
from seer_ray.kernels.upload import upload
from seer_ray.models.load import LoadedModel
from seer_ray.models.patch import forward_tokens, logits_of

log = logging.getLogger(__name__)


class Size(NamedTuple):
    """Of what is captured."""

    rows: int
    pages: int
    """Of the page table's rows, those that are looked at."""


T = TypeVar("T")
Step = Callable[[], None]
Capture = Callable[[Step], Step]
"""From a step to what runs it, this time and again."""

SLOTS, TOP_K = 2, 3
"""Of the buffer of whole numbers: tokens, positions and rows of the page table; top-k and keys."""
UNREAD = -1
"""In place of a token that the host has not read."""


class CapturedSteps(ABC):
    """The decode steps of up to ``max_batch`` sequences.

    Args:
        loaded: model; patched.
        decoder: cache, plan and selectors.
        max_batch: most sequences of a step.
        capture: how; what returns what it is given runs the same step uncaptured.
        dense: every layer reads everything, whatever its selector.
    """

    waits = False
    """The host may wait for the device while it samples: sampling is not captured."""
    cheap = False
    """A capture costs no more than a step: there may be one for whatever comes."""

    def __init__(
        self, loaded: LoadedModel, decoder: Decoder, max_batch: int, capture: Capture, dense: bool = False
    ) -> None:
        self.loaded, self.decoder, self.capture, self.dense = loaded, decoder, capture, dense
        self.vocabulary: int = loaded.model.config.vocab_size
        self.failure: str | None = None
        """Why a capture has failed: then there are no more."""
        self.captures = 0
        """That were tried: a step in which one is takes longer."""
        self.captured: dict[Hashable, Step] = {}
        """By what is the same in all steps of a capture. The one used last comes last."""
        self._selections: dict[Hashable, Selections] = {}
        """Of the captures of recorded steps."""
        # A capture knows where the weights lie, whatever becomes of the modules.
        self._weights = [weight.data for weight in loaded.model.parameters()]
        self._weights += [weight for s in decoder.selectors if s is not None for weight in s.weights]
        device, layers = loaded.device, len(decoder.plan.layers)
        self._integers = torch.zeros(5, max_batch, dtype=torch.int64, device=device)
        self._floats = torch.zeros(4, max_batch, dtype=torch.float32, device=device)
        self._out = torch.zeros(max_batch, 1 + layers, dtype=torch.int64, device=device)
        hidden: int = loaded.model.config.hidden_size
        self._hidden = torch.zeros(max_batch, hidden, dtype=loaded.dtype, device=device)
        # Tokens by row of the page table, the last one padding's. Two buffers: a step reads those that the
        # last one sampled and writes the other, so that running it again gives the same.
        self._given, self._sampled = torch.zeros(2, max_batch + 1, dtype=torch.int64, device=device)
        self._seen: torch.Tensor | None = None
        self._seen_of: list[tuple[Sequence, int] | None] = [None] * max_batch
        self._counts = TokenCounts(max_batch + 1, self.vocabulary, device)
        self._parameters = Parameters(max_batch, self.vocabulary)
        self._logprobs: Logprobs | None = None
        """Of the step that was launched last, if it is asked for them."""
        self._fill([])

    def launch(
        self, sequences: list[Sequence], ahead: bool, needs: Needs | None = None, rows: int = 0
    ) -> Flight:
        """One step. The page table is up to date.

        Args:
            sequences: those of which a step is not read have their last token on the device.
            ahead: the next step may be launched before this one is read.
            needs: what is asked of it, where that is not all that they ask.
            rows: filled up to so many by padding.
        """
        count, device = len(sequences), self._out.device
        needs, rows = needs or Needs.of(sequences), max(rows, count)
        if needs.guided:
            prepare(sequence.guide for sequence in sequences)
        if needs.penalty:
            self._mark(sequences)
        size = self.sizes(rows, max(sequence.cached for sequence in sequences) // self.decoder.cache.block)
        self.ready(size, needs)
        self._fill(sequences)
        began, captures = Mark(device), self.captures
        selections = self.run(sequences, size, needs)
        self._given.copy_(self._sampled)
        watch = None
        if selections is not None:
            recorded = [(row, sequence) for row, sequence in enumerate(sequences) if sequence.recorded]
            plan, cache = self.decoder.plan, self.decoder.cache
            watch = Watch(selections, recorded, cache.block, len(plan.layers), self.decoder.group)
        out, asked = Readback(self._out[:count]), self._logprobs if needs.logprobs else None
        said = Readback(asked.of(self._out[:count, 0])) if asked is not None else None

        def read() -> Made:
            found = out.wait().numpy()
            tokens = found[:, 0].tolist()
            scores = said.wait() if said is not None else None
            if asked is not None and any(s.thinking is not None for s in sequences):
                coming = [s.coming(token) for s, token in zip(sequences, tokens, strict=True)]
                scores = asked.of(torch.tensor(coming, device=device)).cpu()
            spelled = asked.spell(scores) if asked is not None and scores is not None else {}
            return Made(tokens, found[:, 1:], spelled, watch.attended() if watch is not None else {})

        return Flight(sequences, began, out.there, read, first=self.captures > captures)

    def densely(self) -> Self:
        """The steps of the same model and cache in which every layer reads everything."""
        return type(self)(self.loaded, self.decoder, len(self._seen_of), self.capture, dense=True)

    def prepare(self) -> None:  # noqa: B027
        """Before any request: captures what can be known to come."""

    def ready(self, size: Size, needs: Needs) -> None:  # noqa: B027
        """Captures what the step needs and has not, so that no time of it counts as the step's."""

    def all_sizes(self) -> list[Size]:
        """Those that can be known to come, the largest first."""
        return []

    @abstractmethod
    def sizes(self, rows: int, last: int) -> Size:
        """The smallest captures for so many rows whose last page is number ``last`` of a sequence."""

    @abstractmethod
    def run(self, sequences: list[Sequence], size: Size, needs: Needs) -> Selections | None:
        """The step of what is in the buffers: ``layers``, then ``sample``. What the layers selected, if a
        sequence is recorded."""

    def replay(self, form: Hashable, step: Step) -> None:
        """Runs a step, captured with the first one of its form; as it is, where that fails."""
        again = self.captured.pop(form, None) or self._capture(form, step)
        if again is None:
            step()
            return
        self.captured[form] = again
        again()

    def keep(self, kind: type[T], most: int, size: Callable[[T], int] = lambda form: 1) -> None:
        """Of the captures with forms of this kind those that were used last, of ``most`` in size together."""
        forms = [form for form in self.captured if isinstance(form, kind)]
        over = sum(map(size, forms)) - most
        for oldest in forms:
            if over <= 0:
                break
            over -= size(oldest)
            del self.captured[oldest]
            self._selections.pop(oldest, None)

    def _capture(self, form: Hashable, step: Step) -> Step | None:
        if self.failure is not None:
            return None
        self.captures += 1
        try:
            return self.capture(step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.captured.clear()
            self.failure = str(error).strip().splitlines()[0]
            log.warning("decoding uncaptured, slower: capture of %s failed: %s", form, self.failure)
            return None

    # -- what the host knows -------------------------------------------------------------------------

    def _fill(self, sequences: list[Sequence]) -> None:
        """Everything of this step in two copies. Padding stands at position 0 of no row (-1): page 0."""
        (integers_host, integers), (floats_host, floats) = map(_staging, (self._integers, self._floats))
        count, slots = len(sequences), [sequence.slot for sequence in sequences]
        floats[:, count:].T[:] = NEUTRAL
        integers[SLOTS, count:] = -1
        if count:
            floats[:, :count], integers[TOP_K:, :count] = self._parameters.of(sequences, slots)
            integers[0, :count] = [
                s.tokens[s.cached] if s.cached < len(s.tokens) else UNREAD for s in sequences
            ]
            integers[1, :count] = [sequence.cached for sequence in sequences]
            integers[SLOTS, :count] = slots
        for row, sequence in enumerate(sequences):
            forced = sequence.thinking.next if sequence.thinking is not None else None
            if forced is not None and integers[0, row] == UNREAD:  # whatever the device has sampled
                integers[0, row] = forced
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

    def _params(self, rows: int) -> SamplingTensors:
        return SamplingTensors(*self._floats[:, :rows].unbind(), *self._integers[TOP_K:, :rows].unbind())

    # -- the step ------------------------------------------------------------------------------------

    def layers(self, count: int, pages: int, fills: bool, selections: Selections | None = None) -> None:
        """Embedding and layers.

        Args:
            count: rows that are computed.
            pages: of the page table's rows, those that are looked at.
            fills: whether pages that are full are summarised.
            selections: keeps what every layer selects.
        """
        ids, positions, slots = self._given_to(count)
        cache, live = self.decoder.cache, (slots >= 0).unsqueeze(1)
        rows = slots.clamp(min=0)
        tables = [torch.where(live, table[:, :pages][rows], 0) for table in cache.tables]
        states = torch.where(slots >= 0, slots, cache.states.nobody) if cache.states is not None else None
        completed: list[tuple[int, int]] | None = None if fills else []
        step = DecodePass(self.decoder, tables, positions, completed, selections, states, self.dense)
        self._hidden[:count] = forward_tokens(self.loaded.model, ids, step)
        self._out[:count, 1:] = step.tokens_read()

    def sample(self, rows: int, needs: Needs, sequences: list[Sequence]) -> None:
        """``lm_head``, and the next tokens. The sequences are looked at for what is ``needs.beyond``."""
        model: Any = self.loaded.model
        ids, _, slots = self._given_to(rows)
        logits, params = logits_of(model, self._hidden[:rows]), self._params(rows)
        if needs.beyond or needs.penalty:
            logits = logits.float()
        if needs.logprobs:
            self._logprobs = Logprobs(logits, sequences)
        if needs.penalty:
            assert self._seen is not None
            self._seen[slots, ids] = torch.ones_like(ids, dtype=torch.bool)
            logits = penalise(logits, params, self._seen[slots])
        if needs.shaped:
            counted = counted_of(sequences)
            shape(logits, sequences, counted, self._counts.advance(counted, ids) if counted else None)
        tokens = draw(logits, params, needs.plain, needs.ranked, self.waits)
        self._sampled[slots] = tokens
        self._out[:rows, 0] = tokens

    def _given_to(self, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, positions and rows of the page table."""
        ids, positions, slots = self._integers[:TOP_K, :rows].unbind()
        return torch.where(ids == UNREAD, self._given[slots], ids), positions, slots


def _staging(buffer: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Zeros on the host to be copied into a buffer; nobody else gets them before the copy is done."""
    host = torch.zeros(buffer.shape, dtype=buffer.dtype, pin_memory=buffer.is_cuda)
    return host, host.numpy()
