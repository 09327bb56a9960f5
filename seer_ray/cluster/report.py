"""What a worker tells the driver, and its form on the way: columns, so that chains cost the driver little."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seer_ray.engine.request import Completion, Counters, Delta, Reading, Request, SamplingParams

CHAINS = 6400.0
"""Of how many unfinished chains the driver is told in a second, of all workers together; a report costs it as
much as ``REPORT`` chains."""
REPORT = 6
TRIAL = 0.5
"""Seconds between two reports of a worker with a suspect."""
SENT = Request("", (), SamplingParams(0))
"""In place of the request of a completion that was sent: the driver has it."""


def interval(wanted: float, workers: int, chains: int) -> float:
    """Seconds between two reports of unfinished chains: the more of them, the longer.

    Args:
        wanted: ``cluster.report_interval``.
        workers: That report.
        chains: That they decode.
    """
    return max(wanted, (chains + REPORT * min(workers, chains)) / CHAINS)


@dataclass
class WorkReport:
    """What an engine did since the last report."""

    deltas: list[Delta] = field(default_factory=list)
    """One a request: of those that are done, and now and then of the others. On the way to the driver a
    completion loses what the driver knows: its request, and its tokens but for those of the delta."""
    room: int = 0
    """Requests it could take now."""
    busy: bool = False
    stats: dict[str, float] = field(default_factory=dict)
    plan: str = ""
    """Readable form of the layer plan that decoded."""
    waiting: list[str] = field(default_factory=list)
    """Requests of which nothing is being computed: not to blame if the worker dies."""
    refused: str | None = None
    """Why there is no decoding with the options; what was handed in with them is not begun."""

    def __reduce__(self) -> tuple[Any, ...]:
        rest = (self.room, self.busy, self.stats, self.plan, self.waiting, self.refused)
        return _unpack, (*_pack(self.deltas), rest)


def _pack(deltas: Sequence[Delta]) -> tuple[Any, ...]:
    """(ids, tokens of each, all tokens, counters, ends, extras)"""
    ids = [delta.request_id for delta in deltas]
    sizes = array("i", [len(delta.tokens) for delta in deltas])
    tokens = array("i")
    for delta in deltas:
        tokens.extend(delta.tokens)
    ends: list[tuple[Any, ...]] = []
    extras: list[tuple[int, list[bytes], list[bytes]]] = []
    for place, delta in enumerate(deltas):
        if (done := delta.completion) is not None:
            reading = None if done.reading is None else tuple(done.reading)
            ends.append((place, done.finish_reason, done.error, done.preemptions, reading))
        if delta.trace or delta.logprobs:
            extras.append((place, delta.trace, delta.logprobs))
    return ids, sizes.tobytes(), tokens.tobytes(), _pack_counters(deltas), ends, extras


def _pack_counters(deltas: Sequence[Delta]) -> tuple[Any, ...]:
    """(places, whole numbers of each, seconds of all)."""
    places = [place for place, delta in enumerate(deltas) if delta.counters is not None]
    known = [delta.counters for delta in deltas if delta.counters is not None]
    whole = [
        array(
            "q",
            (
                c.attended_kv,
                c.available_kv,
                c.draft_kv,
                len(c.drafted),
                *c.drafted,
                *c.accepted,
                *c.attended_layers,
            ),
        ).tobytes()
        for c in known
    ]
    seconds = array("d")
    for c in known:
        seconds.extend((c.queued_s, c.prefill_s, c.decode_s, c.first_token_s))
    return places, whole, seconds.tobytes()


def _unpack(
    ids: list[str],
    sizes: bytes,
    tokens: bytes,
    counters: tuple[Any, ...],
    ends: list[tuple[Any, ...]],
    extras: list[tuple[int, list[bytes], list[bytes]]],
    rest: tuple[Any, ...],
) -> WorkReport:
    every = array("i", tokens)
    stops = np.cumsum(np.frombuffer(sizes, np.int32)).tolist()
    deltas, start = [], 0
    for id, stop in zip(ids, stops, strict=True):
        deltas.append(Delta(id, every[start:stop]))
        start = stop
    places, whole, seconds = counters
    timings = iter(array("d", seconds))
    for place, numbers, *spent in zip(places, whole, *[timings] * 4, strict=True):
        attended, available, draft, most, *lists = array("q", numbers)
        queued, prefill, decode, first = spent
        layers, drafted, accepted = (
            tuple(lists[at:to]) for at, to in ((2 * most, None), (0, most), (most, 2 * most))
        )
        deltas[place].counters = Counters(
            attended, available, queued, prefill, decode, layers, first, drafted, accepted, draft
        )
    for place, reason, error, preemptions, reading in ends:
        delta = deltas[place]
        read = None if reading is None else Reading(*reading)
        delta.completion = Completion(
            SENT, [], "", reason, error, delta.counters or Counters(), preemptions, reading=read
        )
    for place, trace, logprobs in extras:
        deltas[place].trace, deltas[place].logprobs = trace, logprobs
    return WorkReport(deltas, *rest)
