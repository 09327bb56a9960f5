"""A request inside an engine: its tokens so far, its pages and where its time went."""

from __future__ import annotations

import hashlib
import time
from array import array
from dataclasses import replace

import numpy as np

from seer_ray.engine.forcing import ThinkingState
from seer_ray.engine.guide import Guide
from seer_ray.engine.needs import RECORDED, needs_of
from seer_ray.engine.request import Completion, Counters, Delta, Progress, Request
from seer_ray.engine.speculation.counts import RowCounts
from seer_ray.engine.trace import TraceEncoder


class Sequence:
    """Token ``cached`` is the next to be computed; a sequence decodes when all before it are in the cache.

    The last prompt token is always fed by a decode step, never by prefill: samples of one prompt then share
    everything that prefill made, and a first token is sampled like any other.
    """

    def __init__(self, request: Request, block: int = 64, max_length: int | None = None) -> None:
        """
        Args:
            request: what it becomes a sequence of.
            block: tokens a page, for the trace of a request that is recorded.
            max_length: of any sequence, in tokens; None: no limit but the request's.
        """
        self.request = request
        self.prompt_length = len(request.prompt)
        limit = self.prompt_length + request.sampling.max_new_tokens
        self.limit = limit if max_length is None else min(limit, max_length)
        """Tokens that it has at most, prompt included."""
        self.tokens: list[int] = [*request.prompt, *request.progress.tokens]
        thinking = request.sampling.thinking
        self.thinking = None if thinking is None else ThinkingState(thinking, request.progress.tokens)
        """None: nothing is forced."""
        # What is computed of a prompt depends on where its document is, too.
        said = array("q", (*request.prompt, *(request.document or ())))
        place = b"" if request.document is None else b"document"
        self.prompt_key = hashlib.blake2b(said.tobytes(), digest_size=16, person=place).digest()
        self.pages: list[list[int]] = []
        """By cache group, in order of position; page 0 stands for those that were given back."""
        self.cached = 0
        self.slot = -1
        """Row in the engine's page table; -1: not admitted."""
        self.preemptions = 0
        self.secured = 0
        """Decoded tokens up to this one may be written to pages of its own: no pool need be asked. 0: ask."""
        self.placed = False
        """The page tables have its pages as they are."""
        begun = request.progress.counters
        self._available, self._read = begun.available_kv, np.zeros(0, np.int64)
        self.drafts = RowCounts.of(begun.drafted, begun.accepted, begun.draft_kv)
        self.noise_key = noise_key(request.seed, request.problem, request.sample)
        self.needs = needs_of(request.sampling) | (RECORDED if request.record else 0)
        """What it asks of sampling, see ``needs``."""
        self.least = request.sampling.min_new_tokens
        self.ends = frozenset(request.sampling.eos_token_ids)
        self.watched = bool(request.sampling.stop or request.sampling.structure)
        """More than its last token says whether it has ended."""
        self.guide: Guide | None = None
        """Of a request with a structure: whoever has the tokenizer gives it one."""
        self.logprobs = list(request.progress.logprobs)
        self._reported, self._reported_logprobs = len(self.tokens), len(self.logprobs)
        self._encoder = TraceEncoder(block) if request.record else None
        self._trace: list[bytes] = []
        self._seconds = {"queued": begun.queued_s, "prefill": begun.prefill_s, "decode": begun.decode_s}
        self._phase, self._since = "queued", time.perf_counter()
        self._first_s = begun.first_token_s if request.progress.tokens else None
        """Seconds to the first token; None: there is none yet."""

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def length(self) -> int:
        """Tokens, those included that launched steps sample and nobody has read."""
        return max(len(self.tokens), self.cached + 1)

    @property
    def full(self) -> bool:
        """It has all the tokens that it may have, read or not."""
        return self.length >= self.limit

    @property
    def ready(self) -> bool:
        """All but one token cached: the next decode step samples."""
        return self.cached + 1 == self.length

    @property
    def recorded(self) -> bool:
        """Somebody wants to know what its steps attend."""
        return self._encoder is not None

    def coming(self, sampled: int) -> int:
        """The next token, where the model would say ``sampled``."""
        forced = self.thinking.next if self.thinking is not None else None
        return sampled if forced is None else forced

    def append(self, sampled: int, logprobs: bytes) -> int:
        """The next token, which is given back, and what was asked of it."""
        token = sampled if self.thinking is None else self.thinking.take(sampled)
        self.tokens.append(token)
        if self._first_s is None:
            self._lap()
            self._first_s = sum(self._seconds.values())
        if logprobs:
            self.logprobs.append(logprobs)
        if self.guide is not None:
            self.guide.take(token)
        return token

    def record(self, attended: np.ndarray) -> None:
        """What the step of the next token attended, bool ``[blocks, layers, kv_heads]``."""
        assert self._encoder is not None
        self._trace.append(self._encoder.add(attended))

    def count(self, read: np.ndarray, available: int) -> None:
        """KV tokens that a step read, int64 by layer, and could have read in all."""
        if len(self._read):
            self._read += read
        else:
            self._read = read.copy()
        self._available += available

    def enter(self, phase: str) -> None:
        """From now on time counts as ``queued``, ``prefill`` or ``decode``."""
        self._lap()
        self._phase = phase

    def _lap(self) -> None:
        now = time.perf_counter()
        self._seconds[self._phase] += now - self._since
        self._since = now

    def _counters(self) -> Counters:
        self._lap()
        begun, read = self.request.progress.counters, self._read.tolist()
        layers = begun.attended_layers
        if len(layers) == len(read):
            layers = tuple(before + more for before, more in zip(layers, read, strict=True))
        elif not begun.attended_kv:  # else begun by one that did not count by layer
            layers = tuple(read)
        return Counters(
            begun.attended_kv + sum(read),
            self._available,
            self._seconds["queued"],
            self._seconds["prefill"],
            self._seconds["decode"],
            layers,
            self._first_s or 0.0,
            *self.drafts.told,
        )

    @property
    def told(self) -> bool:
        """There is nothing that ``report`` has not said."""
        return self._reported == len(self.tokens)

    def report(self) -> Delta:
        """The tokens since the last report, with what they have cost: made up when it is asked for, as it
        takes longer than a row's share of a step."""
        tokens = self.tokens[self._reported :]
        self._reported = len(self.tokens)
        trace, self._trace = self._trace, []
        logprobs = self.logprobs[self._reported_logprobs :]
        self._reported_logprobs += len(logprobs)
        return Delta(self.request.id, tokens, self._counters(), trace=trace, logprobs=logprobs)

    def complete(self, text: str, reason: str, error: str | None = None) -> Delta:
        """The last report."""
        delta = self.report()
        assert delta.counters is not None
        delta.completion = Completion(
            replace(self.request, progress=Progress()),
            self.tokens[self.prompt_length :],
            text,
            reason,
            error,
            delta.counters,
            self.preemptions,
            self.logprobs,
        )
        return delta


def noise_key(seed: int, problem: str, sample: int) -> int:
    """64 bits that stand for (seed, problem, sample): the stream of a chain's sampling noise."""
    text = f"{seed}\x1f{problem}\x1f{sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
