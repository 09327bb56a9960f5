"""Draft tokens: by sparse decode steps, as they are, and by n-grams."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from seer_ray.engine.captured import CapturedSteps
from seer_ray.engine.eager import EagerSteps
from seer_ray.engine.flight import Flight
from seer_ray.engine.needs import Needs
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.speculation.ngram import NGrams
from seer_ray.engine.speculation.policy import Chance


class Drafts(NamedTuple):
    """Of one pass."""

    tokens: list[list[int]]
    """Of each row."""
    read: np.ndarray
    """KV tokens that the steps read for each row, by layer: int64 ``[rows, layers]``."""
    seconds: float
    """That the device took for the steps."""
    steps: int
    first: bool
    """See ``Flight``."""


@dataclass
class Drafter:
    """What a row is drafted by, and how often that was right."""

    ngrams: NGrams | None
    found: Chance | None
    """Of n-grams."""
    stepped: Chance | None
    """Of sparse steps."""
    proposed: bool = False
    """The next draft is one of n-grams."""
    _idle: tuple[int, list[int]] = (0, [])
    """What n-grams proposed last, from which token on, while nobody has drafted it."""

    @property
    def chance(self) -> Chance:
        """Of the next draft."""
        chosen = self.found if self.proposed else self.stepped or self.found
        assert chosen is not None
        return chosen

    def look(self, sequence: Sequence, most: int, prefers: Callable[[float, float, int], bool]) -> list[int]:
        """Draft by n-grams, where ``prefers`` (``Lengths.prefers_found``) does; none: by steps, if at all."""
        self.proposed = False
        if self.ngrams is None or most < 1:
            return []
        tokens = sequence.tokens
        self.ngrams.extend(tokens[len(self.ngrams) :])
        assert self.found is not None
        self._judge(tokens, self.found)
        draft = self.ngrams.propose(most)
        self._idle = len(tokens), draft
        if (
            draft
            and self.stepped is not None
            and not prefers(self.found.value, self.stepped.value, len(draft))
        ):
            return []
        self.proposed = bool(draft)
        return draft

    def learn(self, drafted: int, accepted: int) -> None:
        """So many tokens of its draft were right."""
        self.chance.take(drafted, accepted)
        if self.proposed:
            self._idle = 0, []

    def _judge(self, tokens: list[int], found: Chance) -> None:
        """A proposal that was not drafted, by the tokens that have come: it costs nothing to know whether it
        would have been right, and what is never drafted would never be known to be."""
        begin, draft = self._idle
        draft = draft[: len(tokens) - begin]
        if draft:
            right = (ours == theirs for ours, theirs in zip(draft, tokens[begin:], strict=False))
            found.take(len(draft), sum(takewhile(bool, right)))


class DraftSteps:
    """Sparse decode steps of which no token counts. Sequences are as before afterwards.

    Args:
        eager, captured: the decode steps; captured None: they are not.
        layers: of the model.
    """

    def __init__(self, eager: EagerSteps, captured: CapturedSteps | None, layers: int) -> None:
        self._eager, self._captured, self._layers = eager, captured, layers

    def run(self, rows: Seq[Sequence], lengths: Seq[int]) -> Drafts:
        """The page tables are up to date, and pages are there for all tokens.

        Args:
            rows: their last token is the next to be computed.
            lengths: tokens that are drafted for each; of one with 0 nothing is done.
        """
        known = [(row.cached, len(row.tokens)) for row in rows]
        flights: list[tuple[list[int], Flight]] = []
        # One way for all steps, though a capture fails in one: the tokens of those before it are not read.
        captured = self._captured
        if captured is not None and captured.failure is not None:
            captured = None
        try:
            for step in range(max(lengths, default=0)):
                some = [index for index, length in enumerate(lengths) if length > step]
                flights.append((some, self._step([rows[index] for index in some], flights, captured)))
                for index in some:
                    rows[index].cached += 1
            return self._read(len(rows), flights)
        finally:
            for row, (cached, count) in zip(rows, known, strict=True):
                row.cached = cached
                del row.tokens[count:]

    def _step(
        self,
        rows: list[Sequence],
        before: list[tuple[list[int], Flight]],
        captured: CapturedSteps | None,
    ) -> Flight:
        needs = replace(Needs.of(rows), logprobs=False, recorded=False)
        if captured is not None:
            # As many rows as the first step had: one capture for all.
            count = len(before[0][0]) if before else len(rows)
            return captured.launch(rows, True, needs, count)
        flight = self._eager.launch(rows, needs)
        for row, token in zip(rows, flight.results()[0].tokens, strict=True):
            row.tokens.append(token)
        return flight

    def _read(self, rows: int, flights: list[tuple[list[int], Flight]]) -> Drafts:
        tokens: list[list[int]] = [[] for _ in range(rows)]
        read, seconds = np.zeros((rows, self._layers), np.int64), 0.0
        for some, flight in flights:
            made, _ = flight.results()
            for index, token in zip(some, made.tokens, strict=True):
                tokens[index].append(token)
            read[some] += made.read[: len(some)]
            seconds += flight.seconds
        return Drafts(tokens, read, seconds, len(flights), any(flight.first for _, flight in flights))
