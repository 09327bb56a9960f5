"""A request inside an engine: its tokens so far, its pages and where its time went."""

from __future__ import annotations

import hashlib
import time
from array import array
from dataclasses import replace

from seer_ray.engine.request import Completion, Delta, Progress, Request


class Sequence:
    """Token ``cached`` is the next to be computed; a sequence decodes when all before it are in the cache.

    The last prompt token is always fed by a decode step, never by prefill: samples of one prompt then share
    everything that prefill made, and a first token is sampled like any other.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.prompt_length = len(request.prompt)
        self.tokens: list[int] = [*request.prompt, *request.progress.tokens]
        self.prompt_key = hashlib.blake2b(array("q", request.prompt).tobytes(), digest_size=16).digest()
        self.pages: list[int] = []
        self.cached = 0
        self.slot = -1
        """Row in the engine's page table; -1: not admitted."""
        self.preemptions = 0
        self.attended = request.progress.attended_kv
        self.available = request.progress.available_kv
        self.noise_key = noise_key(request.seed, request.problem, request.sample)
        self._reported = len(self.tokens)
        self._seconds = {
            "queued": request.progress.queued_s,
            "prefill": request.progress.prefill_s,
            "decode": request.progress.decode_s,
        }
        self._phase, self._since = "queued", time.perf_counter()

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def ready(self) -> bool:
        """All but one token cached: the next decode step samples."""
        return self.cached == len(self.tokens) - 1

    def enter(self, phase: str) -> None:
        """From now on time counts as ``queued``, ``prefill`` or ``decode``."""
        self._lap()
        self._phase = phase

    def _lap(self) -> None:
        now = time.perf_counter()
        self._seconds[self._phase] += now - self._since
        self._since = now

    def _counters(self) -> Progress:
        self._lap()
        return Progress(
            (),
            self.attended,
            self.available,
            self._seconds["queued"],
            self._seconds["prefill"],
            self._seconds["decode"],
        )

    def report(self) -> Delta:
        """The tokens since the last report."""
        tokens = self.tokens[self._reported :]
        self._reported = len(self.tokens)
        return Delta(self.request.id, tokens, self._counters())

    def complete(self, text: str, reason: str, error: str | None = None) -> Delta:
        """The last report."""
        delta = self.report()
        counters = delta.progress
        assert counters is not None
        delta.completion = Completion(
            replace(self.request, progress=Progress()),
            self.tokens[self.prompt_length :],
            text,
            reason,
            error,
            attended_kv=counters.attended_kv,
            available_kv=counters.available_kv,
            queued_s=counters.queued_s,
            prefill_s=counters.prefill_s,
            decode_s=counters.decode_s,
            preemptions=self.preemptions,
        )
        return delta


def noise_key(seed: int, problem: str, sample: int) -> int:
    """64 bits that stand for (seed, problem, sample): the stream of a chain's sampling noise."""
    text = f"{seed}\x1f{problem}\x1f{sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
